# Tasks of other kinds than the example's. Each output is one.
locals {
  arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:shop-AbCdEf"
}

# A registrar alone, with a static token, beside an application that has a helper and a step of its own.
module "bridge" {
  source = "../../../../deploy/terraform/modules/mesh-task/containers"

  container_definitions = [
    { name = "migrate", image = "shop:1", essential = false, stopTimeout = 5 },
    {
      name             = "app"
      image            = "shop:1"
      dependsOn        = [{ containerName = "migrate", condition = "SUCCESS" }]
      logConfiguration = { logDriver = "fluentd" }
      linuxParameters  = { initProcessEnabled = false }
    },
    { name = "proxy", image = "nginx:1", portMappings = [{ containerPort = 8080, hostPort = 0 }] },
  ]
  service           = "shop"
  port              = 8080
  app_container     = "proxy"
  registry_url      = "http://10.0.0.2:8080,http://10.0.0.3:8080"
  registrar_image   = "registrar:1"
  network_mode      = "bridge"
  token_secret      = local.arn
  app_stop_timeout  = 20
  init_process      = true
  log_configuration = { logDriver = "awslogs" }
}

# Two tasks of one machine share its loopback; Envoy has a static token, and a port that others reach.
module "host" {
  source = "../../../../deploy/terraform/modules/mesh-task/containers"

  container_definitions  = [{ name = "app", image = "shop:1" }]
  service                = "shop"
  port                   = 8080
  registry_url           = "http://registry.internal:8080"
  registrar_image        = "registrar:1"
  network_mode           = "host"
  registrar_admin_listen = "127.0.0.1:9912"
  token_secret           = local.arn
  envoy_token_secret     = "${local.arn}:envoy::"
  registrar_environment  = { REGISTRAR_EXPECTED = "3" }
  registrar_secrets      = { REGISTRAR_OWN = local.arn }
  start_period           = 300
  envoy = {
    image         = "envoy:1"
    bootstrap     = jsonencode({ node = { cluster = "shop" } })
    admin_port    = 9911
    port_mappings = [{ containerPort = 10000 }]
  }
}

# An open registry: no token anywhere.
module "open" {
  source = "../../../../deploy/terraform/modules/mesh-task/containers"

  container_definitions = [{ name = "app", image = "shop:1" }]
  service               = "shop"
  port                  = 8080
  registry_url          = "http://registry.internal:8080"
  registrar_image       = "registrar:1"
  envoy                 = { image = "envoy:1", bootstrap = jsonencode({ node = { cluster = "shop" } }) }
}

# A registry whose database is verified.
module "verified" {
  source = "../../../../deploy/terraform/modules/registry/containers"

  image                    = "registry:1"
  database                 = { host = "db.example", port = 6432, user = "registry" }
  database_password_secret = "${local.arn}:password::"
  database_ca              = "-----BEGIN CERTIFICATE-----"
  auth                     = "audit"
  ask_ecs                  = true
  hosts                    = ["registry.example.com"]
}

# A database that is there, and whose password is a parameter of SSM.
module "parameter" {
  source = "../../../../deploy/terraform/modules/registry/containers"

  image                    = "registry:1"
  database                 = { host = "db.example" }
  database_password_secret = "arn:aws:ssm:eu-west-1:111122223333:parameter/headcount/password"
  auth                     = "on"
}

output "bridge" {
  value = module.bridge.container_definitions
}

output "host" {
  value = module.host.container_definitions
}

output "host_secrets" {
  value = module.host.secrets
}

output "open" {
  value = module.open.container_definitions
}

output "verified" {
  value = module.verified.container_definitions
}

output "password_rights" {
  value = {
    secret    = module.verified.password_right
    parameter = module.parameter.password_right
  }
}
