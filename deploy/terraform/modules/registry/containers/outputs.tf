output "container_definitions" {
  description = "The containers of a registry's task."
  value       = [local.setup, local.registry]
}

output "json" {
  description = "The same as JSON, as aws_ecs_task_definition wants it."
  value       = jsonencode([local.setup, local.registry])
}

output "operator_json" {
  description = "The container of the operator's task, as JSON."
  value       = jsonencode([local.operator])
}

output "volumes" {
  description = "Names of the volumes that the registry's task mounts."
  value       = [local.volume]
}

output "port" {
  description = "Port of the registry's container."
  value       = local.port
}

output "password_right" {
  description = "What the execution role needs to read the password: action and resource."
  value       = local.password_right
}
