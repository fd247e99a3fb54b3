output "url" {
  description = "For registry_url of mesh-task, and for `registry.addresses` of mesh.yaml (without http://)."
  value       = local.url
}

output "security_group_id" {
  description = "Security group of the registry."
  value       = aws_security_group.registry.id
}

output "service_name" {
  description = "Name of the ECS service."
  value       = aws_ecs_service.registry.name
}

output "task_role_name" {
  description = "Task role of the registry, to which further policies can be attached."
  value       = aws_iam_role.task.name
}

output "operator_task_definition" {
  description = "Task definition that `aws ecs run-task --enable-execute-command` starts for the first token; null where there is none."
  value       = one(aws_ecs_task_definition.operator[*].arn)
}

output "database_host" {
  description = "Host of PostgreSQL."
  value       = local.database.host
}

output "load_balancer_dns_name" {
  description = "Target of the DNS records of load_balancer.hosts; null where there is none."
  value       = one(aws_lb.registry[*].dns_name)
}
