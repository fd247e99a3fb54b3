variable "family" {
  description = "Family of the task definition; also the beginning of the names of its roles and of its log group."
  type        = string
}

variable "service" {
  description = "Name of the service in the registry. Unset: the family."
  type        = string
  default     = null
}

variable "container_definitions" {
  description = "The containers of the application, as a list of objects in the words of the ECS API (camelCase): what your task definition has today."
  type        = any
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

variable "check_http_path" {
  description = "Path that the registrar checks, like /healthz. Unset: a TCP connection."
  type        = string
  default     = null
}

variable "registry_url" {
  description = "Base URLs of the registries, comma-separated: the output `url` of the module registry."
  type        = string
}

variable "registrar_image" {
  description = "Image of the registrar, by digest or by a tag that does not move."
  type        = string
}

variable "envoy" {
  description = "The Envoy beside the application, as in containers/variables.tf; null leaves it out."
  type        = any
  default     = null
}

variable "login_audience" {
  description = "REGISTRY_AWS_AUDIENCE of the registry: the task then logs in by its task role."
  type        = string
  default     = null
}

variable "token_secret" {
  description = "ARN of a secret with the registrar's token, where it does not log in by its role."
  type        = string
  default     = null
}

variable "envoy_token_secret" {
  description = "ARN of a secret with Envoy's token, where the registrar does not log in by its role."
  type        = string
  default     = null
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
}

variable "secrets" {
  description = "ARNs of the secrets that your own containers name in `secrets`: the execution role that is made here may read them too."
  type        = list(string)
  default     = []
}

variable "kms_keys" {
  description = "ARNs of the customer managed keys by which those secrets are encrypted."
  type        = list(string)
  default     = []
}

variable "launch_type" {
  description = "FARGATE or EC2."
  type        = string
  default     = "FARGATE"

  validation {
    condition     = contains(["FARGATE", "EC2"], var.launch_type)
    error_message = "launch_type is FARGATE or EC2."
  }

  validation {
    condition     = var.launch_type == "EC2" || var.network_mode == "awsvpc"
    error_message = "Fargate knows the network mode awsvpc alone."
  }
}

variable "network_mode" {
  description = "awsvpc, host or bridge."
  type        = string
  default     = "awsvpc"
}

variable "cpu" {
  description = "CPU units of the task."
  type        = number
  default     = 512
}

variable "memory" {
  description = "MiB of the task."
  type        = number
  default     = 1024
}

variable "cpu_architecture" {
  description = "X86_64 or ARM64; all images have to be of it."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.cpu_architecture)
    error_message = "cpu_architecture is X86_64 or ARM64."
  }
}

variable "registrar_admin_listen" {
  description = "REGISTRAR_ADMIN_LISTEN, for tasks that share a machine's network."
  type        = string
  default     = null
}

variable "registrar_stop_timeout" {
  description = "Seconds that the registrar has for its drain."
  type        = number
  default     = 45
}

variable "app_stop_timeout" {
  description = "Seconds that containers of the application have for their end, where they name no stopTimeout."
  type        = number
  default     = 30
}

variable "start_period" {
  description = "Seconds that the application has for its start; 120 to 300."
  type        = number
  default     = 120
}

variable "execute_command" {
  description = "Let ECS Exec into the application's containers. Those that this module adds have a read-only root and cannot be entered."
  type        = bool
  default     = false
}

variable "volumes" {
  description = "Names of empty volumes that your own containers mount."
  type        = list(string)
  default     = []
}

# Objects, so that it is known at plan time whether there is a role, also where its ARN is not known yet.
variable "task_role" {
  description = "Task role that is there. Unset: one is made, without any right; a login by AWS needs none."
  type        = object({ arn = string })
  default     = null
}

variable "execution_role" {
  description = "Execution role that is there. Unset: one is made that may pull images, write the log group and read the named secrets."
  type        = object({ arn = string })
  default     = null
}

variable "permissions_boundary" {
  description = "ARN of the permissions boundary of the roles that are made."
  type        = string
  default     = null
}

variable "ecr_repositories" {
  description = "ARNs of the ECR repositories from which the execution role that is made here may pull."
  type        = list(string)
  default     = []
}

variable "log_retention_days" {
  description = "Days for which logs are kept."
  type        = number
  default     = 30
}

variable "tags" {
  description = "Tags of all that is made."
  type        = map(string)
  default     = {}
}
