data "aws_region" "current" {}
data "aws_partition" "current" {}

locals {
  region  = data.aws_region.current.region
  service = coalesce(var.service, var.family)
  volumes = distinct(concat(module.containers.volumes, var.volumes))

  log_configuration = {
    logDriver = "awslogs"
    options = {
      "awslogs-group"         = aws_cloudwatch_log_group.this.name
      "awslogs-region"        = local.region
      "awslogs-stream-prefix" = local.service
      # A log that cannot be written must not stop the application.
      "mode"            = "non-blocking"
      "max-buffer-size" = "4m"
    }
  }
}

module "containers" {
  source = "./containers"

  container_definitions  = var.container_definitions
  service                = local.service
  port                   = var.port
  app_container          = var.app_container
  check_http_path        = var.check_http_path
  registry_url           = var.registry_url
  registrar_image        = var.registrar_image
  envoy                  = var.envoy
  login_audience         = var.login_audience
  token_secret           = var.token_secret
  envoy_token_secret     = var.envoy_token_secret
  registrar_environment  = var.registrar_environment
  registrar_secrets      = var.registrar_secrets
  network_mode           = var.network_mode
  registrar_admin_listen = var.registrar_admin_listen
  registrar_stop_timeout = var.registrar_stop_timeout
  app_stop_timeout       = var.app_stop_timeout
  start_period           = var.start_period
  log_configuration      = local.log_configuration
  init_process           = var.execute_command
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/ecs/${var.family}"
  retention_in_days = var.log_retention_days
  tags              = var.tags
}

resource "aws_ecs_task_definition" "this" {
  family                   = var.family
  network_mode             = var.network_mode
  requires_compatibilities = [var.launch_type]
  cpu                      = tostring(var.cpu)
  memory                   = tostring(var.memory)
  task_role_arn            = var.task_role == null ? aws_iam_role.task[0].arn : var.task_role.arn
  execution_role_arn       = var.execution_role == null ? aws_iam_role.execution[0].arn : var.execution_role.arn
  container_definitions    = module.containers.json
  tags                     = var.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.cpu_architecture
  }

  dynamic "volume" {
    for_each = local.volumes
    content {
      name = volume.value
    }
  }
}
