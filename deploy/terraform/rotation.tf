# The rotation of a new Redis' token: deploy/rotation/rotate.py as a Lambda function, in the task's subnets and security group.

locals {
  rotation_function = "${var.name}-rotation"
}

resource "aws_secretsmanager_secret_rotation" "redis" {
  count               = local.rotates ? 1 : 0
  secret_id           = aws_secretsmanager_secret.redis[0].id
  rotation_lambda_arn = aws_cloudformation_stack.rotation[0].outputs["Arn"]
  rotate_immediately  = false
  rotation_rules {
    automatically_after_days = var.redis.rotate_token_every_days
  }
  depends_on = [aws_lambda_permission.rotation, aws_secretsmanager_secret_version.redis]
}

resource "aws_lambda_permission" "rotation" {
  count          = local.rotates ? 1 : 0
  function_name  = aws_cloudformation_stack.rotation[0].outputs["Arn"]
  action         = "lambda:InvokeFunction"
  principal      = "secretsmanager.amazonaws.com"
  source_account = local.account
  source_arn     = aws_secretsmanager_secret.redis[0].arn
}

# Terraform alone cannot zip a file. CloudFormation zips a function's text by itself.
resource "aws_cloudformation_stack" "rotation" {
  count = local.rotates ? 1 : 0
  name  = local.rotation_function
  template_body = jsonencode({
    Resources = {
      Function = {
        Type = "AWS::Lambda::Function"
        Properties = {
          FunctionName  = local.rotation_function
          Description   = "Rotates the token of Redis of ${var.name}"
          Runtime       = "python3.13"
          Handler       = "index.handler"
          MemorySize    = 256
          Timeout       = 900
          Role          = aws_iam_role.rotation[0].arn
          VpcConfig     = { SubnetIds = var.subnet_ids, SecurityGroupIds = [aws_security_group.task.id] }
          LoggingConfig = { LogGroup = aws_cloudwatch_log_group.rotation[0].name }
          Environment = { Variables = {
            SECRET_ARN = aws_secretsmanager_secret.redis[0].arn
            GROUP_ID   = aws_elasticache_replication_group.redis[0].id
          } }
          Code = { ZipFile = file("${path.module}/../rotation/rotate.py") }
        }
      }
    }
    Outputs = { Arn = { Value = { "Fn::GetAtt" = ["Function", "Arn"] } } }
  })
  depends_on = [aws_iam_role_policy.rotation] # Lambda needs these rights to create the function
}

resource "aws_cloudwatch_log_group" "rotation" {
  count             = local.rotates ? 1 : 0
  name              = "/aws/lambda/${local.rotation_function}"
  retention_in_days = var.log_retention_days
}

resource "aws_iam_role" "rotation" {
  count       = local.rotates ? 1 : 0
  name_prefix = "${var.name}-rotate-"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "lambda.amazonaws.com" } }]
  })
}

data "aws_iam_policy_document" "rotation" {
  count = local.rotates ? 1 : 0
  statement {
    actions = [
      "secretsmanager:DescribeSecret",
      "secretsmanager:GetSecretValue",
      "secretsmanager:PutSecretValue",
      "secretsmanager:UpdateSecretVersionStage",
    ]
    resources = [aws_secretsmanager_secret.redis[0].arn]
  }
  statement {
    actions   = ["elasticache:DescribeReplicationGroups", "elasticache:ModifyReplicationGroup"]
    resources = [aws_elasticache_replication_group.redis[0].arn]
  }
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.rotation[0].arn}:*"]
  }
  statement { # its network interfaces, which know no names beforehand; Lambda itself, and not the code
    actions = [
      "ec2:AssignPrivateIpAddresses",
      "ec2:CreateNetworkInterface",
      "ec2:DeleteNetworkInterface",
      "ec2:DescribeNetworkInterfaces",
      "ec2:DescribeSubnets",
      "ec2:UnassignPrivateIpAddresses",
    ]
    resources = ["*"]
    condition {
      test     = "Null"
      variable = "lambda:SourceFunctionArn"
      values   = ["true"]
    }
  }
  dynamic "statement" {
    for_each = var.secret_kms_key_arn == null ? [] : [1]
    content {
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [var.secret_kms_key_arn]
      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["secretsmanager.${local.region}.${data.aws_partition.here.dns_suffix}"]
      }
      condition {
        test     = "StringEquals"
        variable = "kms:EncryptionContext:SecretARN"
        values   = [aws_secretsmanager_secret.redis[0].arn]
      }
    }
  }
}

resource "aws_iam_role_policy" "rotation" {
  count  = local.rotates ? 1 : 0
  name   = "rotate"
  role   = aws_iam_role.rotation[0].id
  policy = data.aws_iam_policy_document.rotation[0].json
}
