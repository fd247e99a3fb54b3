resource "aws_service_discovery_private_dns_namespace" "this" {
  count = var.existing_namespace == null ? 1 : 0

  name = var.namespace_name
  vpc  = var.vpc_id
  tags = var.tags
}

# ECS keeps the records: it adds the address of a task that runs, and takes it away before it stops the task.
resource "aws_service_discovery_service" "registry" {
  name          = "registry"
  force_destroy = true
  tags          = var.tags

  dns_config {
    namespace_id   = local.namespace.id
    routing_policy = "MULTIVALUE"

    dns_records {
      type = "A"
      ttl  = 10
    }
  }

  # ECS tells Cloud Map what it knows of the task's health. AWS takes 1 and nothing else.
  health_check_custom_config {
    failure_threshold = 1
  }
}

resource "aws_security_group" "registry" {
  name        = "${var.name}-registry"
  description = "Registry of Headcount"
  vpc_id      = var.vpc_id
  tags        = var.tags
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = var.client_security_group_ids

  security_group_id            = aws_security_group.registry.id
  referenced_security_group_id = each.value
  description                  = "Registrars and Envoys"
  ip_protocol                  = "tcp"
  from_port                    = module.containers.port
  to_port                      = module.containers.port
}

resource "aws_vpc_security_group_ingress_rule" "networks" {
  for_each = toset(var.client_cidr_blocks)

  security_group_id = aws_security_group.registry.id
  cidr_ipv4         = each.value
  description       = "Clients"
  ip_protocol       = "tcp"
  from_port         = module.containers.port
  to_port           = module.containers.port
}

# The operator's task has this group too, and asks the registry.
resource "aws_vpc_security_group_ingress_rule" "operator" {
  count = var.execute_command ? 1 : 0

  security_group_id            = aws_security_group.registry.id
  referenced_security_group_id = aws_security_group.registry.id
  description                  = "Task of the operator"
  ip_protocol                  = "tcp"
  from_port                    = module.containers.port
  to_port                      = module.containers.port
}

# PostgreSQL, STS, ECS, and the probes of endpoints where they are on.
resource "aws_vpc_security_group_egress_rule" "registry" {
  security_group_id = aws_security_group.registry.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

resource "aws_security_group" "load_balancer" {
  count = var.load_balancer == null ? 0 : 1

  name        = "${var.name}-load-balancer"
  description = "Console of Headcount"
  vpc_id      = var.vpc_id
  tags        = var.tags
}

resource "aws_vpc_security_group_ingress_rule" "people" {
  for_each = toset(var.load_balancer == null ? [] : var.load_balancer.cidr_blocks)

  security_group_id = aws_security_group.load_balancer[0].id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "load_balancer" {
  count = var.load_balancer == null ? 0 : 1

  security_group_id            = aws_security_group.load_balancer[0].id
  referenced_security_group_id = aws_security_group.registry.id
  ip_protocol                  = "tcp"
  from_port                    = module.containers.port
  to_port                      = module.containers.port
}

resource "aws_vpc_security_group_ingress_rule" "load_balancer" {
  count = var.load_balancer == null ? 0 : 1

  security_group_id            = aws_security_group.registry.id
  referenced_security_group_id = aws_security_group.load_balancer[0].id
  description                  = "The load balancer of the console"
  ip_protocol                  = "tcp"
  from_port                    = module.containers.port
  to_port                      = module.containers.port
}

resource "aws_lb" "registry" {
  count = var.load_balancer == null ? 0 : 1

  name               = var.name
  internal           = true
  load_balancer_type = "application"
  subnets            = var.load_balancer.subnet_ids
  security_groups    = [aws_security_group.load_balancer[0].id]
  # Longer than the 55 s for which a poll is held at most, shorter than the 75 s after which the registry closes an idle connection.
  idle_timeout               = 60
  preserve_host_header       = true
  drop_invalid_header_fields = true
  tags                       = var.tags
}

resource "aws_lb_target_group" "registry" {
  count = var.load_balancer == null ? 0 : 1

  name        = var.name
  vpc_id      = var.vpc_id
  target_type = "ip"
  protocol    = "HTTP"
  port        = module.containers.port
  # Longer than a poll is held: ECS deregisters a task before it stops it.
  deregistration_delay = 60
  tags                 = var.tags

  health_check {
    path                = "/readyz"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "registry" {
  count = var.load_balancer == null ? 0 : 1

  load_balancer_arn = aws_lb.registry[0].arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.load_balancer.certificate_arn
  tags              = var.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.registry[0].arn
  }
}
