# A model registry and its model-ready sidecar on ECS Fargate, with ElastiCache: the same as
# deploy/cloudformation/model-ready.yaml, which has the reasons. docs/deploy-ecs.md has the steps.

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80"
    }
  }
}

data "aws_region" "here" {}
data "aws_caller_identity" "here" {}
data "aws_partition" "here" {}

locals {
  makes_redis = var.existing_redis == null
  rotates     = local.makes_redis && var.redis.rotate_token_every_days > 0
  account     = data.aws_caller_identity.here.account_id
  region      = data.aws_region.here.name
  partition   = data.aws_partition.here.partition
  spool       = "/var/lib/modelready-sidecar"

  secret_arn = local.makes_redis ? aws_secretsmanager_secret.redis[0].arn : var.existing_redis.secret_arn
  has_secret = local.makes_redis || try(var.existing_redis.secret_arn, null) != null
  uses_iam   = try(var.existing_redis.iam_cluster, null) != null

  redis = local.makes_redis ? {
    host              = aws_elasticache_replication_group.redis[0].primary_endpoint_address
    port              = 6379
    cluster           = false
    security_group_id = aws_security_group.redis[0].id
    username          = ""
    secret_key        = "password"
    iam_cluster       = ""
    iam_serverless    = false
    } : {
    host              = var.existing_redis.host
    port              = var.existing_redis.port
    cluster           = var.existing_redis.cluster
    security_group_id = var.existing_redis.security_group_id
    username          = var.existing_redis.username
    secret_key        = var.existing_redis.secret_key
    iam_cluster       = var.existing_redis.iam_cluster == null ? "" : var.existing_redis.iam_cluster
    iam_serverless    = var.existing_redis.iam_serverless
  }

  environment = merge({
    REDIS_HOST               = local.redis.host
    REDIS_PORT               = tostring(local.redis.port)
    REDIS_TLS                = "true"
    REDIS_CLUSTER            = tostring(local.redis.cluster)
    REDIS_USERNAME           = local.redis.username
    REDIS_AUTH_SECRET_ID     = local.has_secret ? local.secret_arn : ""
    REDIS_AUTH_SECRET_KEY    = local.redis.secret_key
    REDIS_IAM_CLUSTER        = local.redis.iam_cluster
    REDIS_IAM_SERVERLESS     = tostring(local.redis.iam_serverless)
    AWS_REGION               = local.region
    REDIS_MIN_REPLICAS       = tostring(var.min_replicas)
    QUEUE_NAME               = var.queue_name
    PUBLISH_DURABILITY       = var.publish_durability
    SPOOL_DIR                = local.spool
    SIDECAR_LISTEN           = "127.0.0.1:50051"
    SIDECAR_SOURCE           = var.source_name
    SIDECAR_SHUTDOWN_SECONDS = "25"
    LOG_FORMAT               = "json"
    METRICS_EMF              = "true"
  }, var.sidecar_environment)
}

# --- The token of a new Redis. Terraform needs it, so it is in the state too: keep that in an encrypted backend. ---

resource "aws_secretsmanager_secret" "redis" {
  count       = local.makes_redis ? 1 : 0
  name_prefix = "${var.name}-redis-"
  description = "The AUTH token of Redis of ${var.name}"
  kms_key_id  = var.secret_kms_key_arn
}

data "aws_secretsmanager_random_password" "redis" {
  count               = local.makes_redis ? 1 : 0
  password_length     = 64
  exclude_punctuation = true # ElastiCache allows only a few of them
}

resource "aws_secretsmanager_secret_version" "redis" {
  count         = local.makes_redis ? 1 : 0
  secret_id     = aws_secretsmanager_secret.redis[0].id
  secret_string = jsonencode({ password = data.aws_secretsmanager_random_password.redis[0].random_password })
  lifecycle {
    ignore_changes = [secret_string, version_stages] # each read makes another; a rotation is not Terraform's
  }
}

# --- A new Redis ---

resource "aws_elasticache_parameter_group" "redis" {
  count       = local.makes_redis ? 1 : 0
  name        = var.name
  family      = "valkey8"
  description = "${var.name}, nothing is ever evicted"
  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }
}

resource "aws_elasticache_subnet_group" "redis" {
  count      = local.makes_redis ? 1 : 0
  name       = var.name
  subnet_ids = var.subnet_ids
}

resource "aws_elasticache_replication_group" "redis" {
  count                      = local.makes_redis ? 1 : 0
  replication_group_id       = var.name
  description                = "The queue ${var.queue_name}"
  engine                     = "valkey"
  engine_version             = var.redis.version
  node_type                  = var.redis.node_type
  num_cache_clusters         = var.redis.nodes
  multi_az_enabled           = true
  automatic_failover_enabled = true
  port                       = 6379
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  at_rest_encryption_enabled = true
  auth_token                 = jsondecode(aws_secretsmanager_secret_version.redis[0].secret_string)["password"]
  auth_token_update_strategy = "ROTATE"
  parameter_group_name       = aws_elasticache_parameter_group.redis[0].name
  subnet_group_name          = aws_elasticache_subnet_group.redis[0].name
  security_group_ids         = [aws_security_group.redis[0].id]
  snapshot_retention_limit   = 1
  final_snapshot_identifier  = "${var.name}-final"
  lifecycle {
    ignore_changes = [auth_token] # a rotation is not Terraform's
  }
}

# --- Who reaches what ---

resource "aws_security_group" "task" {
  name_prefix = "${var.name}-task-"
  description = "The task of ${var.name}"
  vpc_id      = var.vpc_id
}

resource "aws_security_group" "redis" {
  count       = local.makes_redis ? 1 : 0
  name_prefix = "${var.name}-redis-"
  description = "Redis of ${var.name}"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.task.id
  description       = "ECR, Secrets Manager, CloudWatch Logs"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_vpc_security_group_egress_rule" "redis" {
  security_group_id            = aws_security_group.task.id
  description                  = "Redis"
  ip_protocol                  = "tcp"
  from_port                    = local.redis.port
  to_port                      = local.redis.port
  referenced_security_group_id = local.redis.security_group_id
}

resource "aws_vpc_security_group_ingress_rule" "task" {
  security_group_id            = local.redis.security_group_id
  description                  = "The task of ${var.name}"
  ip_protocol                  = "tcp"
  from_port                    = local.redis.port
  to_port                      = local.redis.port
  referenced_security_group_id = aws_security_group.task.id
}

resource "aws_vpc_security_group_ingress_rule" "consumers" {
  count                        = local.makes_redis && var.redis.consumer_security_group_id != null ? 1 : 0
  security_group_id            = aws_security_group.redis[0].id
  description                  = "Consumers"
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
  referenced_security_group_id = var.redis.consumer_security_group_id
}

# --- Logs ---

resource "aws_cloudwatch_log_group" "this" {
  for_each          = toset(["registry", "sidecar"])
  name              = "/ecs/${var.name}/${each.key}"
  retention_in_days = var.log_retention_days
}

# --- Roles ---

data "aws_iam_policy_document" "tasks" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["arn:${local.partition}:ecs:${local.region}:${local.account}:*"]
    }
  }
}

resource "aws_iam_role" "execution" {
  name_prefix        = "${var.name}-start-"
  assume_role_policy = data.aws_iam_policy_document.tasks.json
}

locals {
  # The ARN of a secret without the key, stage and version that may follow it.
  registry_secrets = distinct([
    for arn in values(var.registry.secrets) : join(":", slice(split(":", arn), 0, 7)) if split(":", arn)[2] == "secretsmanager"
  ])
  registry_parameters = distinct([for arn in values(var.registry.secrets) : arn if split(":", arn)[2] == "ssm"])
}

data "aws_iam_policy_document" "execution" {
  statement {
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }
  statement {
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = ["arn:${local.partition}:ecr:*:*:repository/*"]
  }
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = [for group in aws_cloudwatch_log_group.this : "${group.arn}:*"]
  }
  dynamic "statement" {
    for_each = { for action, resources in {
      "secretsmanager:GetSecretValue" = local.registry_secrets
      "ssm:GetParameters"             = local.registry_parameters
      "kms:Decrypt"                   = var.registry.secret_kms_key_arns
    } : action => resources if length(resources) > 0 }
    content {
      actions   = [statement.key]
      resources = statement.value
    }
  }
}

resource "aws_iam_role_policy" "execution" {
  name   = "start"
  role   = aws_iam_role.execution.id
  policy = data.aws_iam_policy_document.execution.json
}

resource "aws_iam_role" "task" {
  name_prefix        = "${var.name}-task-"
  assume_role_policy = data.aws_iam_policy_document.tasks.json
}

resource "aws_iam_role_policy_attachment" "registry" {
  for_each   = toset(var.registry.policy_arns)
  role       = aws_iam_role.task.name
  policy_arn = each.value
}

data "aws_iam_policy_document" "task" {
  dynamic "statement" {
    for_each = local.has_secret ? [1] : []
    content {
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [local.secret_arn]
    }
  }
  dynamic "statement" {
    for_each = local.has_secret && var.secret_kms_key_arn != null ? [1] : []
    content {
      actions   = ["kms:Decrypt"]
      resources = [var.secret_kms_key_arn]
      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["secretsmanager.${local.region}.${data.aws_partition.here.dns_suffix}"]
      }
      condition {
        test     = "StringEquals"
        variable = "kms:EncryptionContext:SecretARN"
        values   = [local.secret_arn]
      }
    }
  }
  dynamic "statement" {
    for_each = local.uses_iam ? [1] : []
    content {
      actions = ["elasticache:Connect"]
      resources = [for resource in [
        "${local.redis.iam_serverless ? "serverlesscache" : "replicationgroup"}:${local.redis.iam_cluster}",
        "user:${local.redis.username}",
      ] : "arn:${local.partition}:elasticache:${local.region}:${local.account}:${resource}"]
    }
  }
}

resource "aws_iam_role_policy" "task" {
  count  = local.has_secret || local.uses_iam ? 1 : 0
  name   = "redis"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.task.json
}

# --- The task and its service ---

resource "aws_ecs_cluster" "this" {
  count = var.cluster_arn == null ? 1 : 0
  name  = var.name
}

locals {
  logs = { for name, group in aws_cloudwatch_log_group.this : name => {
    logDriver = "awslogs"
    options = {
      awslogs-group         = group.name
      awslogs-region        = local.region
      awslogs-stream-prefix = name
      mode                  = "non-blocking"
      max-buffer-size       = "25m"
    }
  } }
  containers = [
    {
      name             = "registry"
      image            = var.registry.image
      essential        = true
      portMappings     = [{ containerPort = var.registry.port, protocol = "tcp" }]
      dependsOn        = [{ containerName = "sidecar", condition = "HEALTHY" }]
      environment      = [for name, value in var.registry.environment : { name = name, value = value }]
      secrets          = [for name, arn in var.registry.secrets : { name = name, valueFrom = arn }]
      logConfiguration = local.logs["registry"]
    },
    {
      name                   = "sidecar"
      image                  = var.sidecar_image
      essential              = true
      user                   = "10001"
      readonlyRootFilesystem = true
      linuxParameters        = { capabilities = { drop = ["ALL"] } }
      stopTimeout            = 40 # above SIDECAR_SHUTDOWN_SECONDS
      restartPolicy          = { enabled = true, restartAttemptPeriod = 60, ignoredExitCodes = [2] }
      healthCheck = {
        command     = ["CMD", "modelready-sidecar", "health"]
        interval    = 10
        timeout     = 3
        startPeriod = 5
        retries     = 3
      }
      mountPoints      = [{ sourceVolume = "spool", containerPath = local.spool }]
      environment      = [for name, value in local.environment : { name = name, value = value }]
      logConfiguration = local.logs["sidecar"]
    },
  ]
}

resource "aws_ecs_task_definition" "this" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  container_definitions    = jsonencode(local.containers)
  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }
  volume {
    name = "spool"
  }
}

resource "aws_ecs_service" "this" {
  name                               = var.name
  cluster                            = var.cluster_arn == null ? aws_ecs_cluster.this[0].arn : var.cluster_arn
  launch_type                        = "FARGATE"
  task_definition                    = aws_ecs_task_definition.this.arn
  desired_count                      = var.desired_count
  wait_for_steady_state              = var.wait_for_steady_state
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  propagate_tags                     = "SERVICE"
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }
  network_configuration {
    subnets          = var.subnet_ids
    assign_public_ip = var.assign_public_ip
    security_groups  = compact([aws_security_group.task.id, var.registry.security_group_id])
  }
  dynamic "load_balancer" {
    for_each = var.registry.target_group_arn == null ? [] : [1]
    content {
      container_name   = "registry"
      container_port   = var.registry.port
      target_group_arn = var.registry.target_group_arn
    }
  }
  health_check_grace_period_seconds = var.registry.target_group_arn == null ? null : 120
  depends_on                        = [aws_iam_role_policy.task, aws_iam_role_policy.execution, aws_vpc_security_group_ingress_rule.task]
}

# --- Alarms and dashboard, generated by scripts/monitoring.py ---

locals {
  monitoring = jsondecode(file("${path.module}/alarms.json"))
  actions    = var.alarm_topic_arn == null ? [] : [var.alarm_topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each            = { for alarm in local.monitoring.alarms : alarm.name => alarm }
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = local.monitoring.namespace
  metric_name         = each.value.metric
  dimensions          = { Service = var.source_name, Queue = var.queue_name }
  statistic           = each.value.statistic
  comparison_operator = each.value.comparison
  threshold           = try(tonumber(each.value.threshold), var.oldest_age_alarm_seconds)
  period              = local.monitoring.period
  evaluation_periods  = each.value.of
  datapoints_to_alarm = each.value.minutes
  treat_missing_data  = each.value.missing
  alarm_actions       = local.actions
  ok_actions          = local.actions
  depends_on          = [aws_ecs_service.this] # else sidecar-absent would start in alarm
}

resource "aws_cloudwatch_metric_alarm" "rotation" {
  count               = local.rotates ? 1 : 0
  alarm_name          = "${var.name}-${local.monitoring.rotation.name}"
  alarm_description   = local.monitoring.rotation.description
  namespace           = "AWS/Lambda"
  metric_name         = local.monitoring.rotation.metric
  dimensions          = { FunctionName = local.rotation_function }
  statistic           = local.monitoring.rotation.statistic
  comparison_operator = local.monitoring.rotation.comparison
  threshold           = local.monitoring.rotation.threshold
  period              = local.monitoring.period
  evaluation_periods  = local.monitoring.rotation.of
  datapoints_to_alarm = local.monitoring.rotation.minutes
  treat_missing_data  = local.monitoring.rotation.missing
  alarm_actions       = local.actions
  ok_actions          = local.actions
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = templatefile("${path.module}/dashboard.json.tftpl", {
    Region      = local.region
    Alarms      = "arn:${local.partition}:cloudwatch:${local.region}:${local.account}:alarm:${var.name}-"
    Source      = var.source_name
    QueueName   = var.queue_name
    SidecarLogs = aws_cloudwatch_log_group.this["sidecar"].name
  })
}
