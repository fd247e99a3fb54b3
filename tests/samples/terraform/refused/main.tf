# Everything that the modules refuse, at once.
module "task" {
  source = "../../../../deploy/terraform/modules/mesh-task/containers"

  container_definitions  = [{ name = "envoy", image = "mine" }]
  service                = "shop"
  port                   = 8080
  registry_url           = "http://registry.internal:8080"
  registrar_image        = "registrar:1"
  network_mode           = "bridge"
  login_audience         = "headcount-production"
  token_secret           = "shop-token"
  registrar_stop_timeout = 15
  start_period           = 30
  envoy                  = { image = "envoy:1", bootstrap = "node: {}" }
}

module "registry" {
  source = "../../../../deploy/terraform/modules/registry/containers"

  image                    = "registry:1"
  database                 = { host = "db.example" }
  database_password_secret = "headcount/database"
  auth                     = "yes"
  login_audience           = "headcount-production"
  stop_timeout             = 20
}
