# terraform init && terraform test: plans with a provider that is played, so it needs no account.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { name = "eu-west-1" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
  mock_data "aws_secretsmanager_random_password" {
    defaults = { random_password = "0123456789abcdefghij" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/played" }
  }
  mock_resource "aws_ecs_task_definition" {
    defaults = { arn = "arn:aws:ecs:eu-west-1:123456789012:task-definition/played:1" }
  }
  mock_resource "aws_cloudformation_stack" {
    defaults = { outputs = { Arn = "arn:aws:lambda:eu-west-1:123456789012:function:models-rotation" } }
  }
  mock_resource "aws_secretsmanager_secret" {
    defaults = { arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:played-AbCdEf" }
  }
}

variables {
  name          = "models"
  vpc_id        = "vpc-0123"
  subnet_ids    = ["subnet-0123", "subnet-4567"]
  registry      = { image = "registry:1" }
  sidecar_image = "sidecar:1"
}

run "a_new_redis" {
  assert {
    condition = alltrue([
      aws_elasticache_replication_group.redis[0].transit_encryption_mode == "required",
      aws_elasticache_replication_group.redis[0].multi_az_enabled,
      aws_elasticache_replication_group.redis[0].auth_token == "0123456789abcdefghij",
      one(aws_elasticache_parameter_group.redis[0].parameter).value == "noeviction",
    ])
    error_message = "Redis has TLS, the token, two zones, and evicts nothing."
  }
  assert {
    condition     = local.environment.REDIS_AUTH_SECRET_ID == aws_secretsmanager_secret.redis[0].arn
    error_message = "The sidecar gets the secret, not the token."
  }
  assert {
    condition     = !strcontains(aws_ecs_task_definition.this.container_definitions, "0123456789abcdefghij")
    error_message = "The token is not in the task definition."
  }
  assert {
    condition     = data.aws_iam_policy_document.task.statement[0].actions == toset(["secretsmanager:GetSecretValue"])
    error_message = "The task may read the secret."
  }
  assert {
    condition     = length(data.aws_iam_policy_document.task.statement) == 1
    error_message = "The task may do nothing else."
  }
  assert {
    condition     = length(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets) > 10
    error_message = "The dashboard is JSON."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["queue-not-draining"].threshold == 900
    error_message = "A threshold that is a variable is filled in."
  }
  assert {
    condition     = strcontains(aws_cloudformation_stack.rotation[0].template_body, "def handler(event")
    error_message = "The rotation has its function."
  }
  assert {
    condition = alltrue([
      aws_lambda_permission.rotation[0].principal == "secretsmanager.amazonaws.com",
      aws_lambda_permission.rotation[0].source_arn == aws_secretsmanager_secret.redis[0].arn,
      aws_secretsmanager_secret_rotation.redis[0].rotation_rules[0].automatically_after_days == 30,
    ])
    error_message = "Secrets Manager calls it for this secret, every 30 days."
  }
  assert {
    condition     = data.aws_iam_policy_document.rotation[0].statement[0].resources == toset([aws_secretsmanager_secret.redis[0].arn])
    error_message = "The rotation may change this secret alone."
  }
}

run "no_rotation" {
  variables {
    redis = { rotate_token_every_days = 0 }
  }
  assert {
    condition     = length(aws_cloudformation_stack.rotation) + length(aws_iam_role.rotation) + length(aws_secretsmanager_secret_rotation.redis) == 0
    error_message = "No function is made."
  }
}

run "no_rotation_in_public_subnets" {
  command = plan
  variables {
    assign_public_ip = true
  }
  expect_failures = [var.redis]
}

run "an_existing_redis_by_iam" {
  variables {
    existing_redis = {
      host              = "redis.internal"
      security_group_id = "sg-0123"
      iam_cluster       = "queue"
      username          = "registry"
    }
  }
  assert {
    condition     = length(aws_elasticache_replication_group.redis) + length(aws_secretsmanager_secret.redis) == 0
    error_message = "No Redis is made, and no secret."
  }
  assert {
    condition     = data.aws_iam_policy_document.task.statement[0].actions == toset(["elasticache:Connect"])
    error_message = "The task may log in."
  }
  assert {
    condition     = local.environment.REDIS_AUTH_SECRET_ID == "" && local.environment.REDIS_IAM_CLUSTER == "queue"
    error_message = "One login, not two."
  }
}

run "two_logins_are_refused" {
  command = plan
  variables {
    existing_redis = {
      host              = "redis.internal"
      security_group_id = "sg-0123"
      iam_cluster       = "queue"
      username          = "registry"
      secret_arn        = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:redis-AbCdEf"
    }
  }
  expect_failures = [var.existing_redis]
}
