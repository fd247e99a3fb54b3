variable "image" {
  description = "Image of the registry, by digest or by a tag that does not move."
  type        = string
}

variable "database" {
  description = "The PostgreSQL: host, port, database and role. Its password comes from database_password_secret."
  type = object({
    host = string
    port = optional(number, 5432)
    name = optional(string, "headcount")
    user = optional(string, "headcount")
  })
}

variable "database_password_secret" {
  description = "valueFrom of the password: ARN of a secret, with `:password::` behind it where the secret is JSON, or of a parameter of SSM."
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:(secretsmanager|ssm):", var.database_password_secret))
    error_message = "database_password_secret is the whole ARN of a secret of Secrets Manager or of a parameter of SSM."
  }
}

variable "database_ca" {
  description = "Certificates in PEM of the authority that signed PostgreSQL's. Unset: connections are encrypted, and the server is not verified."
  type        = string
  default     = null

  validation {
    condition     = var.database_ca == null || try(length(var.database_ca) < 49152, true)
    error_message = "database_ca is longer than 48 KiB; take the bundle of one region, not the global one: a task definition has 64 KiB."
  }
}

variable "auth" {
  description = "REGISTRY_AUTH: off, audit or on."
  type        = string

  validation {
    condition     = contains(["off", "audit", "on"], var.auth)
    error_message = "auth is off, audit or on."
  }
}

variable "aws_regions" {
  description = "REGISTRY_AWS_REGIONS: regions in which workloads log in by their AWS roles. Empty: no such login."
  type        = list(string)
  default     = []
}

variable "login_audience" {
  description = "REGISTRY_AWS_AUDIENCE: a name that this installation alone has."
  type        = string
  default     = null

  validation {
    condition     = (var.login_audience == null) == (length(var.aws_regions) == 0)
    error_message = "login_audience and aws_regions go together: set both, or neither."
  }
}

variable "ask_ecs" {
  description = "REGISTRY_ECS_TASKS=on: ask ECS whether the tasks of silent endpoints have stopped."
  type        = bool
  default     = false
}

variable "hosts" {
  description = "REGISTRY_HOSTS: names under which browsers open the console."
  type        = list(string)
  default     = []
}

variable "environment" {
  description = "Further REGISTRY_ variables, by name."
  type        = map(string)
  default     = {}
}

variable "shutdown_delay" {
  description = "Seconds for which a stopping process still answers, until clients have another address: the time to live of its DNS records."
  type        = number
  default     = 15
}

variable "stop_timeout" {
  description = "Seconds between SIGTERM and SIGKILL; longer than shutdown_delay and 10 s for requests under way."
  type        = number
  default     = 45

  validation {
    condition     = var.stop_timeout <= 120 && var.stop_timeout > var.shutdown_delay + 10
    error_message = "stop_timeout is longer than shutdown_delay and 10 s, and 120 s at most (Fargate)."
  }
}

variable "log_configuration" {
  description = "logConfiguration of the containers."
  type        = any
  default     = null
}
