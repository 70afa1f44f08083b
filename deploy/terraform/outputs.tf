output "cluster" {
  value = aws_ecs_service.this.cluster
}

output "service" {
  value = aws_ecs_service.this.name
}

output "sidecar_log_group" {
  value = aws_cloudwatch_log_group.this["sidecar"].name
}

output "redis_host" {
  description = "REDIS_HOST of the consumers"
  value       = local.redis.host
}

output "redis_secret_arn" {
  description = "REDIS_AUTH_SECRET_ID of the consumers, which need the right to read it"
  value       = local.has_secret ? local.secret_arn : null
}

output "dashboard" {
  value = aws_cloudwatch_dashboard.this.dashboard_name
}
