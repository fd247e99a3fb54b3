output "task_definition_arn" {
  description = "For `task_definition` of your aws_ecs_service."
  value       = aws_ecs_task_definition.this.arn

  # A role without its rights starts no task, and a service that names this output comes after it.
  depends_on = [
    aws_iam_role_policy.execution,
    aws_iam_role_policy.execute_command,
    aws_iam_role_policy.address,
  ]
}

output "task_role_name" {
  description = "Name of the role that was made, as `registryctl identity set NAME --aws ACCOUNT:ROLE` wants it; null where you named one."
  value       = one(aws_iam_role.task[*].name)
}

output "execution_role_name" {
  description = "Name of the execution role that was made, to which further policies can be attached; null where you named one."
  value       = one(aws_iam_role.execution[*].name)
}

output "log_group_name" {
  description = "Log group of the containers that were added."
  value       = aws_cloudwatch_log_group.this.name
}
