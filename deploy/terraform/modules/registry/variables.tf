variable "name" {
  description = "Name of all that is made: service, roles, database, security groups."
  type        = string
  default     = "headcount"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}$", var.name))
    error_message = "name begins with a small letter and has at most 31 small letters, digits and hyphens, as RDS wants it."
  }
}

variable "image" {
  description = "Image of the registry, by digest or by a tag that does not move."
  type        = string
}

variable "cluster_arn" {
  description = "ARN of the ECS cluster."
  type        = string
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets of at least two zones, for the registry and its database. Tasks need a way to ECR, CloudWatch Logs, Secrets Manager and STS: a NAT gateway or VPC endpoints."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids are at least two, in different zones: RDS wants that, and so does a registry that survives a zone."
  }
}

variable "client_security_group_ids" {
  description = "Security groups of the tasks whose registrars and Envoys may reach the registry, by a key of your choice."
  type        = map(string)
  default     = {}
}

variable "client_cidr_blocks" {
  description = "Networks that may reach the registry, such as a VPN of operators."
  type        = list(string)
  default     = []
}

variable "namespace_name" {
  description = "Private DNS namespace of Cloud Map that is made; the registry is `registry` in it."
  type        = string
  default     = "internal"
}

variable "existing_namespace" {
  description = "One that is there, in place of the one that is made."
  type = object({
    id   = string
    name = string
  })
  default = null
}

variable "desired_count" {
  description = "Processes of the registry; two survive a zone, and more serve more."
  type        = number
  default     = 2
}

variable "cpu" {
  description = "CPU units of a process."
  type        = number
  default     = 1024
}

variable "memory" {
  description = "MiB of a process."
  type        = number
  default     = 2048
}

variable "cpu_architecture" {
  description = "X86_64 or ARM64; the image has to be of it."
  type        = string
  default     = "X86_64"
}

variable "database" {
  description = <<-EOT
    The PostgreSQL that is made on RDS; null where there is one, which existing_database names.
    deletion_protection: turn it off before you destroy it; its final snapshot is `NAME-final`.
    kms_key_arn: the key of its storage and of the password's secret; the execution role gets the right to decrypt by it.
  EOT
  type = object({
    instance_class        = optional(string, "db.t4g.medium")
    engine_version        = optional(string, "17")
    allocated_storage     = optional(number, 20)
    max_allocated_storage = optional(number, 100)
    multi_az              = optional(bool, true)
    backup_retention_days = optional(number, 7)
    deletion_protection   = optional(bool, true)
    kms_key_arn           = optional(string)
    ca_cert_identifier    = optional(string, "rds-ca-rsa2048-g1")
    password_version      = optional(number, 1)
  })
  default = {}
}

variable "existing_database" {
  description = "A PostgreSQL 15 or newer that is there: its address, the valueFrom of its password (the ARN of a secret, with `:password::` behind it where the secret is JSON, or of a parameter of SSM), and the security groups into which a rule for the registry is put, by keys of your choice."
  type = object({
    host               = string
    port               = optional(number, 5432)
    name               = optional(string, "headcount")
    user               = optional(string, "headcount")
    password_secret    = string
    security_group_ids = optional(map(string), {})
  })
  default = null

  validation {
    condition     = (var.database == null) != (var.existing_database == null)
    error_message = "Set existing_database together with database = null, or neither."
  }
}

variable "database_ca" {
  description = "PEM of the authority of PostgreSQL's certificate, like file(\"eu-west-1-bundle.pem\") from truststore.pki.rds.amazonaws.com. Unset: encrypted, the server not verified."
  type        = string
  default     = null
}

variable "auth" {
  description = "REGISTRY_AUTH. A new installation is closed from the start; `audit` is the way there for one that is in use."
  type        = string
  default     = "on"
}

variable "login_audience" {
  description = "REGISTRY_AWS_AUDIENCE: a name that this installation alone has, like headcount-production. Null: no login by AWS roles."
  type        = string
  default     = null
}

variable "aws_regions" {
  description = "Regions whose STS is believed. Empty: this one."
  type        = list(string)
  default     = []
}

variable "ask_ecs" {
  description = "Let the registry ask ECS about the tasks of silent endpoints."
  type        = bool
  default     = false
}

variable "task_clusters" {
  description = "Names of the ECS clusters whose tasks it may ask about. Empty: the cluster of the registry."
  type        = list(string)
  default     = []
}

variable "environment" {
  description = "Further REGISTRY_ variables, by name."
  type        = map(string)
  default     = {}
}

variable "load_balancer" {
  description = <<-EOT
    An internal Application Load Balancer for people and pipelines; null for none. Registrars and Envoys go by DNS, past it:
    grants by address need the address of the task, and a poll is held for 30 s.
    subnet_cidr_blocks: the networks of its subnets. People share its addresses, so that limits of an address do not hold there.
    hosts: the names under which browsers open it. cidr_blocks: the networks that may.
  EOT
  type = object({
    subnet_ids         = list(string)
    subnet_cidr_blocks = list(string)
    certificate_arn    = string
    hosts              = list(string)
    cidr_blocks        = list(string)
  })
  default = null
}

variable "execute_command" {
  description = "Make the operator's task definition, which ECS Exec may enter: for the first token, and for registryctl."
  type        = bool
  default     = true
}

variable "ecr_repositories" {
  description = "ARNs of the ECR repositories from which the execution role may pull."
  type        = list(string)
  default     = []
}

variable "kms_keys" {
  description = "ARNs of customer managed keys by which the password of existing_database is encrypted."
  type        = list(string)
  default     = []
}

variable "permissions_boundary" {
  description = "ARN of the permissions boundary of the roles."
  type        = string
  default     = null
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
