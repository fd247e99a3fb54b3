variable "container_definitions" {
  description = "The containers of the application, as a list of objects in the words of the ECS API (camelCase). They are kept as they are, but for what `outputs.tf` says."
  type        = any

  validation {
    condition     = can([for container in var.container_definitions : container.name]) && length(var.container_definitions) > 0
    error_message = "container_definitions is a list of objects that each have a name; pass the list itself, or jsondecode() of it."
  }

  validation {
    condition = length(setintersection(
      try([for container in var.container_definitions : container.name], []),
      ["envoy-setup", "envoy", "envoy-ready", "registrar"]
    )) == 0
    error_message = "The names envoy-setup, envoy, envoy-ready and registrar are those of the containers that are added; rename yours."
  }
}

variable "service" {
  description = "Name of the service in the registry."
  type        = string
}

variable "port" {
  description = "Port of the application's container that other services reach."
  type        = number
}

variable "app_container" {
  description = "Name of the container that has the port. Unset: the first one."
  type        = string
  default     = null
}

variable "registry_url" {
  description = "Base URLs of the registries, comma-separated, like http://registry.internal:8080."
  type        = string
}

variable "registrar_image" {
  description = "Image of the registrar, by digest or by a tag that does not move."
  type        = string
}

variable "check_http_path" {
  description = "Path that the registrar checks, like /healthz. Unset: a TCP connection, which does not notice an application that accepts and hangs."
  type        = string
  default     = null
}

variable "envoy" {
  description = <<-EOT
    The Envoy beside the application; null leaves it out.
    bootstrap: what `registryctl mesh bootstrap SERVICE` prints. Its admin interface has to be at admin_port of 127.0.0.1.
    image: Envoy 1.37 or newer, by digest or by a tag that does not move. It needs neither a shell nor curl.
    port_mappings: ports that others reach, of a gateway or an edge.
  EOT
  type = object({
    bootstrap          = string
    image              = string
    admin_port         = optional(number, 9901)
    log_level          = optional(string, "warning")
    cpu                = optional(number, 0)
    memory_reservation = optional(number, 64)
    stop_timeout       = optional(number, 30)
    ready_within       = optional(string, "60s")
    port_mappings      = optional(list(object({ containerPort = number, hostPort = optional(number), protocol = optional(string, "tcp") })), [])
  })
  default = null

  validation {
    condition     = var.envoy == null || can(jsondecode(var.envoy.bootstrap).node)
    error_message = "envoy.bootstrap is no JSON object with a node; write what `registryctl mesh bootstrap SERVICE` prints into a file and pass file(\"web.json\")."
  }

  validation {
    condition     = var.envoy == null || try(length(var.envoy.bootstrap) < 49152, true)
    error_message = "envoy.bootstrap is longer than 48 KiB; a task definition has 64 KiB for everything. Serve clusters and routes by the registry (`registryctl mesh apply`)."
  }
}

variable "login_audience" {
  description = "REGISTRY_AWS_AUDIENCE of the registry: the registrar then logs in by the task's AWS role. Unset: a token, or an open registry."
  type        = string
  default     = null
}

variable "token_secret" {
  description = "ARN of a secret (Secrets Manager or SSM) with the registrar's token, where it does not log in by its role."
  type        = string
  default     = null

  validation {
    condition     = var.token_secret == null || can(regex("^arn:[^:]+:(secretsmanager|ssm):", var.token_secret))
    error_message = "token_secret is the whole ARN of a secret of Secrets Manager or of a parameter of SSM."
  }

  validation {
    condition     = var.token_secret == null || var.login_audience == null
    error_message = "token_secret and login_audience exclude each other: the registrar either has a token or logs in."
  }
}

variable "envoy_token_secret" {
  description = "ARN of a secret with the token of the Envoy, where the registrar does not log in by its role."
  type        = string
  default     = null

  validation {
    condition     = var.envoy_token_secret == null || can(regex("^arn:[^:]+:(secretsmanager|ssm):", var.envoy_token_secret))
    error_message = "envoy_token_secret is the whole ARN of a secret of Secrets Manager or of a parameter of SSM."
  }

  validation {
    condition     = var.envoy_token_secret == null || (var.envoy != null && var.login_audience == null)
    error_message = "envoy_token_secret is for an Envoy beside a registrar that does not log in: set envoy, and leave out login_audience."
  }
}

variable "registrar_environment" {
  description = "Further REGISTRAR_ variables, by name."
  type        = map(string)
  default     = {}
}

variable "registrar_secrets" {
  description = "Further secrets of the registrar: ARN by variable."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for arn in values(var.registrar_secrets) : can(regex("^arn:[^:]+:(secretsmanager|ssm):", arn))])
    error_message = "registrar_secrets has whole ARNs of secrets of Secrets Manager or of parameters of SSM."
  }
}

variable "network_mode" {
  description = "awsvpc, host or bridge. Fargate knows awsvpc alone."
  type        = string
  default     = "awsvpc"

  validation {
    condition     = contains(["awsvpc", "host", "bridge"], var.network_mode)
    error_message = "network_mode is awsvpc, host or bridge."
  }

  validation {
    condition     = var.network_mode != "bridge" || var.envoy == null
    error_message = "In bridge mode each container has a loopback of its own, so that the application does not reach an Envoy of its task: use awsvpc, or leave envoy out and run one Envoy a host."
  }
}

variable "registrar_admin_listen" {
  description = "REGISTRAR_ADMIN_LISTEN. In host mode two tasks of one machine need one each, like 127.0.0.1:9912."
  type        = string
  default     = null
}

variable "registrar_stop_timeout" {
  description = "Seconds between SIGTERM and SIGKILL of the registrar: the drain wait of the registry (12 s), one request, and 3 s to spare."
  type        = number
  default     = 45

  validation {
    condition     = var.registrar_stop_timeout >= 16 && var.registrar_stop_timeout <= 120
    error_message = "registrar_stop_timeout is 16 to 120 s: a drain takes 12 s and 3 s to spare, and Fargate allows 120 s."
  }
}

variable "app_stop_timeout" {
  description = "Seconds between SIGTERM and SIGKILL of the application's containers that name no stopTimeout."
  type        = number
  default     = 30

  validation {
    condition     = var.app_stop_timeout >= 2 && var.app_stop_timeout <= 120
    error_message = "app_stop_timeout is 2 to 120 s."
  }
}

variable "start_period" {
  description = "Seconds that the application has for its start before a failing health check of the registrar counts; 120 to 300."
  type        = number
  default     = 120

  validation {
    condition     = var.start_period >= 120 && var.start_period <= 300
    error_message = "start_period is 120 to 300 s: the registrar waits 120 s for a registry that is away, and ECS allows 300 s."
  }
}

variable "log_configuration" {
  description = "logConfiguration of the containers that are added, and of the application's that have none. Without one their output is lost on Fargate."
  type        = any
  default     = null
}

variable "init_process" {
  description = "Run an init process in the application's containers that say nothing about it, as ECS Exec wants."
  type        = bool
  default     = false
}
