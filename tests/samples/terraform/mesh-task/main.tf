# The task of deploy/ecs/task-definition.json, by the module: a test compares both.
module "containers" {
  source = "../../../../deploy/terraform/modules/mesh-task/containers"

  container_definitions = [
    {
      name         = "app"
      image        = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/shop:1.8.2"
      essential    = true
      portMappings = [{ containerPort = 8080, protocol = "tcp" }]
    },
  ]
  service         = "shop"
  port            = 8080
  check_http_path = "/healthz"
  registry_url    = "http://registry.internal:8080"
  registrar_image = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/headcount-registrar:0.1.0"
  login_audience  = "headcount-production"
  envoy = {
    image     = var.envoy_image
    bootstrap = var.bootstrap
  }
  log_configuration = {
    logDriver = "awslogs"
    options = {
      "awslogs-group"         = "/ecs/shop"
      "awslogs-region"        = "eu-west-1"
      "awslogs-stream-prefix" = "shop"
      "mode"                  = "non-blocking"
      "max-buffer-size"       = "4m"
    }
  }
}

variable "envoy_image" {
  type = string
}

variable "bootstrap" {
  type = string
}

output "container_definitions" {
  value = module.containers.container_definitions
}

output "volumes" {
  value = module.containers.volumes
}
