output "container_definitions" {
  description = "All containers, in the order in which they start. The application's are as they were passed, with a stopTimeout and a logConfiguration if they had none, and with Envoy in front of their dependsOn."
  value       = local.containers
}

output "json" {
  description = "The same as JSON, as aws_ecs_task_definition wants it."
  value       = jsonencode(local.containers)
}

output "volumes" {
  description = "Names of the task's volumes that these containers mount: empty ones, which live as long as the task."
  value       = local.with_envoy ? [local.volume] : []
}

output "secrets" {
  description = "ARNs of the secrets that the execution role has to read for these containers."
  value       = distinct([for arn in concat(values(local.registrar_secrets), values(local.envoy_token_secrets)) : arn])
}
