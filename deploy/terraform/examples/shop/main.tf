# A registry, the service `payments`, and the service `shop` that calls it.
# The bootstraps are those of docs/ecs.md: `registryctl mesh bootstrap shop --dir mesh > shop.json`.
terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0"
    }
  }
}

provider "aws" {
  region = var.region
}

variable "region" {
  type    = string
  default = "eu-west-1"
}

variable "account" {
  type = string
}

variable "vpc_id" {
  type = string
}

variable "private_subnet_ids" {
  type = list(string)
}

# Without a default: an apply that forgets it would end every task.
variable "start_services" {
  description = "false until the identities are set and the mesh configuration is applied (docs/ecs.md), and true from then on."
  type        = bool
}

locals {
  images = "${var.account}.dkr.ecr.${var.region}.amazonaws.com"
  pulls  = [for name in ["headcount-registry", "headcount-registrar", "shop", "payments"] : "arn:aws:ecr:${var.region}:${var.account}:repository/${name}"]

  services = {
    shop     = { image = "${local.images}/shop:1.8.2", desired_count = 3 }
    payments = { image = "${local.images}/payments:2.0.1", desired_count = 2 }
  }
}

resource "aws_ecs_cluster" "prod" {
  name = "prod"
}

resource "aws_security_group" "services" {
  name        = "services"
  description = "Tasks that call one another through their Envoys"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "between_services" {
  security_group_id            = aws_security_group.services.id
  referenced_security_group_id = aws_security_group.services.id
  ip_protocol                  = "tcp"
  from_port                    = 8080
  to_port                      = 8080
}

resource "aws_vpc_security_group_egress_rule" "services" {
  security_group_id = aws_security_group.services.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

module "registry" {
  source = "../../modules/registry"

  image                     = "${local.images}/headcount-registry:0.1.0"
  cluster_arn               = aws_ecs_cluster.prod.arn
  vpc_id                    = var.vpc_id
  subnet_ids                = var.private_subnet_ids
  client_security_group_ids = { services = aws_security_group.services.id }
  login_audience            = "headcount-production"
  ecr_repositories          = local.pulls
}

module "task" {
  source   = "../../modules/mesh-task"
  for_each = local.services

  family = each.key
  container_definitions = [
    {
      name         = "app"
      image        = each.value.image
      essential    = true
      portMappings = [{ containerPort = 8080, protocol = "tcp" }]
    },
  ]
  port            = 8080
  check_http_path = "/healthz"
  registry_url    = module.registry.url
  registrar_image = "${local.images}/headcount-registrar:0.1.0"
  login_audience  = "headcount-production"
  envoy = {
    image     = "envoyproxy/envoy:distroless-v1.40.0"
    bootstrap = file("${path.root}/${each.key}.json")
  }
  ecr_repositories = local.pulls
}

resource "aws_ecs_service" "this" {
  for_each = local.services

  name                               = each.key
  cluster                            = aws_ecs_cluster.prod.arn
  task_definition                    = module.task[each.key].task_definition_arn
  desired_count                      = var.start_services ? each.value.desired_count : 0
  launch_type                        = "FARGATE"
  propagate_tags                     = "SERVICE"
  availability_zone_rebalancing      = "ENABLED"
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = var.private_subnet_ids
    security_groups  = [aws_security_group.services.id]
    assign_public_ip = false
  }
}

output "registry_url" {
  value = module.registry.url
}

output "task_roles" {
  description = "For `registryctl identity set NAME --aws ACCOUNT:ROLE --for registrar --service NAME`."
  value       = { for name, task in module.task : name => task.task_role_name }
}

output "operator_task_definition" {
  value = module.registry.operator_task_definition
}
