locals {
  user      = "10001"
  port      = 8080
  directory = "/var/lib/headcount"
  volume    = "data"
  ca_file   = "${local.directory}/database-ca.pem"

  with_ca      = var.database_ca != null
  database     = "postgresql://${var.database.user}@${var.database.host}:${var.database.port}/${var.database.name}"
  database_url = local.with_ca ? "${local.database}?sslmode=verify-full&sslrootcert=${local.ca_file}" : "${local.database}?sslmode=require"

  environment = merge(
    {
      REGISTRY_LISTEN         = "0.0.0.0:${local.port}"
      REGISTRY_DATABASE_URL   = local.database_url
      REGISTRY_DATA_DIR       = local.directory
      REGISTRY_AUTH           = var.auth
      REGISTRY_SHUTDOWN_DELAY = "${var.shutdown_delay}s"
    },
    length(var.aws_regions) == 0 ? {} : {
      REGISTRY_AWS_REGIONS  = join(",", var.aws_regions)
      REGISTRY_AWS_AUDIENCE = var.login_audience
    },
    var.ask_ecs ? { REGISTRY_ECS_TASKS = "on" } : {},
    length(var.hosts) == 0 ? {} : { REGISTRY_HOSTS = join(",", var.hosts) },
    var.environment,
  )

  # libpq's own variable, so that the secret has the password alone.
  secrets = [{ name = "PGPASSWORD", valueFrom = var.database_password_secret }]

  # `valueFrom` may name a key of a JSON secret behind the ARN (`:key:stage:id`); a right names the secret alone.
  password = split(":", var.database_password_secret)
  password_right = {
    action   = local.password[2] == "ssm" ? "ssm:GetParameters" : "secretsmanager:GetSecretValue"
    resource = join(":", slice(local.password, 0, min(7, length(local.password))))
  }

  logs = var.log_configuration == null ? {} : { logConfiguration = var.log_configuration }

  mount = [{ sourceVolume = local.volume, containerPath = local.directory }]
}

locals {
  # Runs first and ends: an empty volume belongs to root, and the registry does not run as root.
  setup = merge(
    {
      name                   = "registry-setup"
      image                  = var.image
      essential              = false
      stopTimeout            = 2
      user                   = "0"
      readonlyRootFilesystem = true
      entryPoint             = ["sh", "-c"]
      command = [join(" && ", concat(
        ["umask 077"],
        [for write in ["printf '%s\\n' \"$DATABASE_CA\" > ${local.ca_file}"] : write if local.with_ca],
        ["chown -R ${local.user}:${local.user} ${local.directory}", "chmod 700 ${local.directory}"],
      ))]
      mountPoints = local.mount
    },
    local.with_ca ? { environment = [{ name = "DATABASE_CA", value = var.database_ca }] } : {},
    local.logs,
  )

  registry = merge(
    {
      name                   = "registry"
      image                  = var.image
      essential              = true
      stopTimeout            = var.stop_timeout
      user                   = local.user
      readonlyRootFilesystem = true
      command                = ["serve"]
      dependsOn              = [{ containerName = "registry-setup", condition = "SUCCESS" }]
      portMappings           = [{ name = "http", containerPort = local.port, protocol = "tcp" }]
      environment            = [for name, value in local.environment : { name = name, value = value }]
      secrets                = local.secrets
      mountPoints            = local.mount
      ulimits                = [{ name = "nofile", softLimit = 65535, hardLimit = 65535 }]
      # /readyz stays 200 while PostgreSQL is away, and is 503 in a process that never could read it: a deployment with a
      # wrong password does not take the place of processes that serve.
      healthCheck = {
        command     = ["CMD", "python", "-c", "import urllib.request as http; http.urlopen('http://127.0.0.1:${local.port}/readyz', timeout=3)"]
        interval    = 10
        timeout     = 5
        retries     = 3
        startPeriod = 120
      }
    },
    local.logs,
  )

  # The same image as a place to stand, for the first token and for registryctl: it does nothing, and ends after an hour.
  operator = merge(
    {
      name                   = "operator"
      image                  = var.image
      essential              = true
      stopTimeout            = 2
      user                   = local.user
      readonlyRootFilesystem = false
      entryPoint             = ["sleep"]
      command                = ["3600"]
      environment            = [{ name = "REGISTRY_DATABASE_URL", value = "${local.database}?sslmode=require" }]
      secrets                = local.secrets
      linuxParameters        = { initProcessEnabled = true }
    },
    local.logs,
  )
}
