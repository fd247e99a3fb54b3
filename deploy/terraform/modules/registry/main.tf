data "aws_region" "current" {}
data "aws_partition" "current" {}
data "aws_caller_identity" "current" {}

locals {
  region    = data.aws_region.current.region
  partition = data.aws_partition.current.partition
  account   = data.aws_caller_identity.current.account_id

  namespace = var.existing_namespace == null ? {
    id   = aws_service_discovery_private_dns_namespace.this[0].id
    name = var.namespace_name
  } : var.existing_namespace
  url = "http://registry.${local.namespace.name}:${module.containers.port}"

  clusters = length(var.task_clusters) > 0 ? var.task_clusters : [split("/", var.cluster_arn)[1]]

  log_configuration = {
    logDriver = "awslogs"
    options = {
      "awslogs-group"         = aws_cloudwatch_log_group.this.name
      "awslogs-region"        = local.region
      "awslogs-stream-prefix" = "registry"
      "mode"                  = "non-blocking"
      "max-buffer-size"       = "4m"
    }
  }
}

module "containers" {
  source = "./containers"

  image                    = var.image
  database                 = local.database
  database_password_secret = local.password_value_from
  database_ca              = var.database_ca
  auth                     = var.auth
  aws_regions              = var.login_audience == null ? [] : coalescelist(var.aws_regions, [local.region])
  login_audience           = var.login_audience
  ask_ecs                  = var.ask_ecs
  hosts                    = var.load_balancer == null ? [] : var.load_balancer.hosts
  environment = merge(
    var.load_balancer == null ? {} : { REGISTRY_PEER_LIMIT_EXEMPT = join(",", var.load_balancer.subnet_cidr_blocks) },
    var.environment,
  )
  log_configuration = local.log_configuration
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/ecs/${var.name}"
  retention_in_days = var.log_retention_days
  tags              = var.tags
}

resource "aws_ecs_task_definition" "registry" {
  family                   = var.name
  network_mode             = "awsvpc"
  requires_compatibilities = ["FARGATE"]
  cpu                      = tostring(var.cpu)
  memory                   = tostring(var.memory)
  task_role_arn            = aws_iam_role.task.arn
  execution_role_arn       = aws_iam_role.execution.arn
  container_definitions    = module.containers.json
  tags                     = var.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.cpu_architecture
  }

  dynamic "volume" {
    for_each = module.containers.volumes
    content {
      name = volume.value
    }
  }
}

resource "aws_ecs_service" "registry" {
  name                               = var.name
  cluster                            = var.cluster_arn
  task_definition                    = aws_ecs_task_definition.registry.arn
  desired_count                      = var.desired_count
  launch_type                        = "FARGATE"
  platform_version                   = "LATEST"
  propagate_tags                     = "SERVICE"
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  availability_zone_rebalancing      = "ENABLED"
  health_check_grace_period_seconds  = var.load_balancer == null ? null : 120
  tags                               = var.tags

  # Not ready means not healthy, so a version that cannot serve never takes the place of one that does.
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [aws_security_group.registry.id]
    assign_public_ip = false
  }

  service_registries {
    registry_arn = aws_service_discovery_service.registry.arn
  }

  dynamic "load_balancer" {
    for_each = aws_lb_target_group.registry
    content {
      target_group_arn = load_balancer.value.arn
      container_name   = "registry"
      container_port   = module.containers.port
    }
  }

  lifecycle {
    # Whoever scales it by hand or by a policy is not undone by the next apply.
    ignore_changes = [desired_count]
  }

  depends_on = [aws_iam_role_policy.execution, aws_lb_listener.registry]
}

resource "aws_ecs_task_definition" "operator" {
  count = var.execute_command ? 1 : 0

  family                   = "${var.name}-operator"
  network_mode             = "awsvpc"
  requires_compatibilities = ["FARGATE"]
  cpu                      = "256"
  memory                   = "512"
  task_role_arn            = aws_iam_role.operator[0].arn
  execution_role_arn       = aws_iam_role.execution.arn
  container_definitions    = module.containers.operator_json
  tags                     = var.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.cpu_architecture
  }
}
