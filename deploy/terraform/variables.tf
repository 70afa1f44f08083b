# The CloudFormation template, deploy/cloudformation/model-ready.yaml, explains these in full.

variable "name" {
  description = "The name of everything that the module creates."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9]*(-[a-z0-9]+)*$", var.name)) && length(var.name) <= 28
    error_message = "1 to 28 of a-z, 0-9 and single hyphens, the first a letter: names of roles and of Redis begin with it."
  }
}

variable "vpc_id" {
  description = "The VPC of the task and of Redis."
  type        = string
}

variable "subnet_ids" {
  description = "Two private subnets or more, in different Availability Zones."
  type        = list(string)
  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "Redis needs subnets in two Availability Zones."
  }
}

variable "cluster_arn" {
  description = "An ECS cluster. Null: one is created."
  type        = string
  default     = null
}

variable "registry" {
  description = "The registry's container. `environment` and `secrets` (name to ARN, of Secrets Manager or Parameter Store, encrypted by `secret_kms_key_arns` where that is no key of AWS) are its own; `policy_arns` is what it may do in AWS."
  type = object({
    image               = string
    port                = optional(number, 5000)
    environment         = optional(map(string), {})
    secrets             = optional(map(string), {})
    secret_kms_key_arns = optional(list(string), [])
    policy_arns         = optional(list(string), [])
    target_group_arn    = optional(string)
    security_group_id   = optional(string)
  })
  validation {
    condition     = alltrue([for arn in values(var.registry.secrets) : can(regex("^arn:[^:]+:(secretsmanager:[^:]*:[^:]*:secret:|ssm:[^:]*:[^:]*:parameter/).", arn))])
    error_message = "Each of registry.secrets is the ARN of a secret of Secrets Manager or of a parameter of Parameter Store."
  }
}

variable "sidecar_image" {
  description = "The image made from this project's Dockerfile."
  type        = string
}

variable "sidecar_environment" {
  description = "More variables of the sidecar: .env.example has them all. Never a secret."
  type        = map(string)
  default     = {}
}

variable "cpu" {
  description = "CPU units of the task."
  type        = number
  default     = 512
}

variable "memory" {
  description = "MiB of the task."
  type        = number
  default     = 1024
}

variable "architecture" {
  description = "The architecture of both images."
  type        = string
  default     = "X86_64"
}

variable "desired_count" {
  description = "Tasks, each a registry with its sidecar."
  type        = number
  default     = 1
}

variable "wait_for_steady_state" {
  description = "An apply waits until the new tasks are healthy, and fails if they do not become healthy."
  type        = bool
  default     = true
}

variable "assign_public_ip" {
  description = "Only in public subnets without a NAT gateway."
  type        = bool
  default     = false
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 30
}

variable "source_name" {
  description = "SIDECAR_SOURCE, and the dimension Service of the metrics."
  type        = string
  default     = "//model-registry"
  validation {
    condition     = can(regex("^[!#-\\[\\]-~]{1,255}$", var.source_name))
    error_message = "1 to 255 printable characters of ASCII, without blanks, quotes and backslashes."
  }
}

variable "queue_name" {
  description = "The queue's name."
  type        = string
  default     = "model-ready"
}

variable "publish_durability" {
  description = "The least durability of calls that name none. Fargate's disk goes with the task."
  type        = string
  default     = "spooled"
  validation {
    condition     = contains(["spooled", "primary", "replicated"], var.publish_durability)
    error_message = "It must be one of spooled, primary, replicated."
  }
}

variable "min_replicas" {
  description = "Replicas that must confirm an event for replicated."
  type        = number
  default     = 1
}

variable "redis" {
  description = "A new Redis, created if existing_redis is null."
  type = object({
    node_type                  = optional(string, "cache.t4g.small")
    nodes                      = optional(number, 2)
    version                    = optional(string, "8.1")
    consumer_security_group_id = optional(string)
    rotate_token_every_days    = optional(number, 30) # 0: never
  })
  default = {}
  validation {
    condition     = var.existing_redis != null || !var.assign_public_ip || var.redis.rotate_token_every_days == 0
    error_message = "A Lambda function gets no public address. In public subnets set rotate_token_every_days = 0 and rotate by hand."
  }
}

variable "existing_redis" {
  description = "A Redis or Valkey with TLS. Either secret_arn, or iam_cluster together with username."
  type = object({
    host              = string
    port              = optional(number, 6379)
    cluster           = optional(bool, false)
    security_group_id = string
    username          = optional(string, "")
    secret_arn        = optional(string)
    secret_key        = optional(string, "password")
    iam_cluster       = optional(string)
    iam_serverless    = optional(bool, false)
  })
  default = null
  validation {
    condition = var.existing_redis == null ? true : (
      (var.existing_redis.secret_arn == null || var.existing_redis.iam_cluster == null) &&
      (var.existing_redis.iam_cluster == null || var.existing_redis.username != "") &&
      (var.existing_redis.username == "" || var.existing_redis.secret_arn != null || var.existing_redis.iam_cluster != null)
    )
    error_message = "Give secret_arn, or iam_cluster with username, not both; a username needs one of them."
  }
}

variable "secret_kms_key_arn" {
  description = "The KMS key of the secret, new or existing. Null: aws/secretsmanager."
  type        = string
  default     = null
}

variable "alarm_topic_arn" {
  description = "The SNS topic for alarms. Null: they are only shown."
  type        = string
  default     = null
}

variable "oldest_age_alarm_seconds" {
  description = "The age of an unacknowledged entry, in seconds, that raises an alarm."
  type        = number
  default     = 900
}
