# The tasks of deploy/ecs/registry-task-definition.json and operator-task-definition.json, by the module: a test compares them.
module "containers" {
  source = "../../../../deploy/terraform/modules/registry/containers"

  image                    = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/headcount-registry:0.1.0"
  database                 = { host = "headcount.abcdefghijkl.eu-west-1.rds.amazonaws.com" }
  database_password_secret = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:headcount/database-AbCdEf:password::"
  auth                     = "on"
  aws_regions              = ["eu-west-1"]
  login_audience           = "headcount-production"
  log_configuration = {
    logDriver = "awslogs"
    options = {
      "awslogs-group"         = "/ecs/headcount"
      "awslogs-region"        = "eu-west-1"
      "awslogs-stream-prefix" = "registry"
      "mode"                  = "non-blocking"
      "max-buffer-size"       = "4m"
    }
  }
}

output "container_definitions" {
  value = module.containers.container_definitions
}

output "operator" {
  value = jsondecode(module.containers.operator_json)
}

output "volumes" {
  value = module.containers.volumes
}
