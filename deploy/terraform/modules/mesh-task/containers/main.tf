locals {
  # Users and groups of the images: the registrar's, and Envoy's own.
  registrar_user  = "10001"
  envoy_user      = "101:101"
  token_directory = "/run/envoy-token"
  token_file      = "${local.token_directory}/token"
  volume          = "envoy-token"

  app_container    = coalesce(var.app_container, try(var.container_definitions[0].name, "app"))
  with_envoy       = var.envoy != null
  with_envoy_token = local.with_envoy && (var.login_audience != null || var.envoy_token_secret != null)

  # What registrar and setup share, so that both have one identity and one way to the registry.
  settings = merge(
    {
      REGISTRAR_REGISTRY_URL = var.registry_url
      REGISTRAR_SERVICE      = var.service
      REGISTRAR_CONTAINER    = local.app_container
      REGISTRAR_ENDPOINT     = ":${var.port}"
    },
    var.login_audience == null ? {} : {
      REGISTRAR_LOGIN          = "aws"
      REGISTRAR_LOGIN_AUDIENCE = var.login_audience
    },
    local.with_envoy_token ? { REGISTRAR_ENVOY_TOKEN_FILE = local.token_file } : {},
  )

  registrar_settings = merge(
    local.settings,
    { REGISTRAR_STOP_TIMEOUT = "${var.registrar_stop_timeout}s" },
    # Where the bootstrap of `registryctl mesh bootstrap` polls first.
    local.with_envoy ? { REGISTRAR_EDGE_LISTEN = "127.0.0.1:9903" } : {},
    var.check_http_path == null ? {} : { REGISTRAR_CHECK_HTTP_PATH = var.check_http_path },
    var.registrar_admin_listen == null ? {} : { REGISTRAR_ADMIN_LISTEN = var.registrar_admin_listen },
    var.registrar_environment,
  )

  envoy_token_secrets = var.envoy_token_secret == null ? {} : { REGISTRAR_ENVOY_TOKEN = var.envoy_token_secret }
  registrar_secrets = merge(
    var.token_secret == null ? {} : { REGISTRAR_TOKEN = var.token_secret },
    local.envoy_token_secrets,
    var.registrar_secrets,
  )

  logs = var.log_configuration == null ? {} : { logConfiguration = var.log_configuration }

  token_mount = [{ sourceVolume = local.volume, containerPath = local.token_directory }]
}

locals {
  # Runs first and ends: the bootstrap with the task's node id, and Envoy's first token. It starts as root to give the
  # empty volume away, and goes on as the registrar's user.
  envoy_setup = merge(
    {
      name                   = "envoy-setup"
      image                  = var.registrar_image
      essential              = false
      stopTimeout            = 2
      cpu                    = 32
      memoryReservation      = 48
      user                   = "0"
      readonlyRootFilesystem = true
      command                = ["envoy-setup", "--directory", local.token_directory, "--owner", "${local.registrar_user}:101"]
      environment = [for name, value in merge(local.settings, { ENVOY_BOOTSTRAP = try(jsonencode(jsondecode(var.envoy.bootstrap)), "") }) :
      { name = name, value = value }]
      mountPoints = local.token_mount
    },
    length(local.envoy_token_secrets) == 0 ? {} : { secrets = [for name, arn in local.envoy_token_secrets : { name = name, valueFrom = arn }] },
    local.logs,
  )

  envoy = merge(
    {
      name                   = "envoy"
      image                  = try(var.envoy.image, "")
      essential              = true
      stopTimeout            = try(var.envoy.stop_timeout, 30)
      cpu                    = try(var.envoy.cpu, 0)
      memoryReservation      = try(var.envoy.memory_reservation, 64)
      user                   = local.envoy_user
      readonlyRootFilesystem = true
      command                = ["-c", "${local.token_directory}/bootstrap.json", "--disable-hot-restart", "--log-level", try(var.envoy.log_level, "warning")]
      dependsOn              = [{ containerName = "envoy-setup", condition = "SUCCESS" }]
      mountPoints            = [merge(local.token_mount[0], { readOnly = true })]
      ulimits                = [{ name = "nofile", softLimit = 65535, hardLimit = 65535 }]
    },
    length(try(var.envoy.port_mappings, [])) == 0 ? {} : {
      portMappings = [for mapping in var.envoy.port_mappings : { for key, value in mapping : key => value if value != null }]
    },
    local.logs,
  )

  # Envoy's image has no program that could ask whether it is live, so this container asks, and the application waits for it.
  envoy_ready = merge(
    {
      name                   = "envoy-ready"
      image                  = var.registrar_image
      essential              = false
      stopTimeout            = 2
      cpu                    = 32
      memoryReservation      = 48
      user                   = local.registrar_user
      readonlyRootFilesystem = true
      command                = ["envoy-ready", "--admin", "127.0.0.1:${try(var.envoy.admin_port, 9901)}", "--within", try(var.envoy.ready_within, "60s")]
      dependsOn              = [{ containerName = "envoy", condition = "START" }]
    },
    local.logs,
  )

  app_waits = [for wait in [
    { containerName = "envoy", condition = "START" },
    { containerName = "envoy-ready", condition = "SUCCESS" },
  ] : wait if local.with_envoy]

  app = [for container in var.container_definitions : merge(
    { stopTimeout = var.app_stop_timeout },
    local.logs,
    var.init_process ? { linuxParameters = { initProcessEnabled = true } } : {},
    container,
    length(concat(local.app_waits, lookup(container, "dependsOn", []))) == 0 ? {} : {
      dependsOn = concat(local.app_waits, lookup(container, "dependsOn", []))
    },
  )]

  # ECS stops in the reverse order: the registrar drains while everything that it depends on still serves.
  registrar = merge(
    {
      name                   = "registrar"
      image                  = var.registrar_image
      essential              = true
      stopTimeout            = var.registrar_stop_timeout
      cpu                    = 32
      memoryReservation      = 48
      user                   = local.registrar_user
      readonlyRootFilesystem = true
      dependsOn = [for container in var.container_definitions : { containerName = container.name, condition = "START" }
      if lookup(container, "essential", true)]
      environment = [for name, value in local.registrar_settings : { name = name, value = value }]
      healthCheck = {
        command     = concat(["CMD", "registrar", "healthcheck"], local.with_envoy ? ["--envoy", "127.0.0.1:${var.envoy.admin_port}"] : [])
        interval    = 10
        timeout     = 5
        retries     = 3
        startPeriod = var.start_period
      }
    },
    local.with_envoy_token ? { mountPoints = local.token_mount } : {},
    length(local.registrar_secrets) == 0 ? {} : { secrets = [for name, arn in local.registrar_secrets : { name = name, valueFrom = arn }] },
    local.logs,
  )

  # A condition between lists of unlike objects is an error of types; a filter is none.
  around_envoy = [for container in [local.envoy_setup, local.envoy, local.envoy_ready] : container if local.with_envoy]
  containers   = concat(local.around_envoy, local.app, [local.registrar])
}
