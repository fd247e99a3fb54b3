locals {
  made = var.database == null ? [] : [var.database]

  database = var.existing_database == null ? {
    host = aws_db_instance.this[0].address
    port = aws_db_instance.this[0].port
    name = aws_db_instance.this[0].db_name
    user = aws_db_instance.this[0].username
    } : {
    host = var.existing_database.host
    port = var.existing_database.port
    name = var.existing_database.name
    user = var.existing_database.user
  }

  password_value_from = var.existing_database == null ? "${aws_secretsmanager_secret.database[0].arn}:password::" : var.existing_database.password_secret
}

# Not the password that RDS manages: it is rotated each week, and a running task would have the old one.
ephemeral "random_password" "database" {
  count = length(local.made)

  length  = 40
  special = false
}

resource "aws_secretsmanager_secret" "database" {
  count = length(local.made)

  name        = "${var.name}/database"
  description = "Headcount's role in PostgreSQL"
  kms_key_id  = one(local.made[*].kms_key_arn)
  tags        = var.tags
}

resource "aws_secretsmanager_secret_version" "database" {
  count = length(local.made)

  secret_id                = aws_secretsmanager_secret.database[0].id
  secret_string_wo         = jsonencode({ username = "headcount", password = ephemeral.random_password.database[0].result })
  secret_string_wo_version = var.database.password_version
}

# What was stored, and not what was generated: a new run generates another one, which nobody stores.
ephemeral "aws_secretsmanager_secret_version" "database" {
  count = length(local.made)

  secret_id = aws_secretsmanager_secret_version.database[0].secret_id
}

resource "aws_security_group" "database" {
  count = length(local.made)

  name        = "${var.name}-database"
  description = "PostgreSQL of Headcount"
  vpc_id      = var.vpc_id
  tags        = var.tags
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  for_each = merge(
    { for index, made in local.made : "made" => aws_security_group.database[0].id },
    var.existing_database == null ? {} : var.existing_database.security_group_ids,
  )

  security_group_id            = each.value
  referenced_security_group_id = aws_security_group.registry.id
  description                  = "Registry of Headcount"
  ip_protocol                  = "tcp"
  from_port                    = local.database.port
  to_port                      = local.database.port
}

resource "aws_db_subnet_group" "this" {
  count = length(local.made)

  name       = var.name
  subnet_ids = var.subnet_ids
  tags       = var.tags
}

resource "aws_db_instance" "this" {
  count = length(local.made)

  identifier                      = var.name
  engine                          = "postgres"
  engine_version                  = var.database.engine_version
  instance_class                  = var.database.instance_class
  db_name                         = "headcount"
  username                        = "headcount"
  password_wo                     = jsondecode(ephemeral.aws_secretsmanager_secret_version.database[0].secret_string).password
  password_wo_version             = var.database.password_version
  port                            = 5432
  allocated_storage               = var.database.allocated_storage
  max_allocated_storage           = var.database.max_allocated_storage
  storage_type                    = "gp3"
  storage_encrypted               = true
  kms_key_id                      = var.database.kms_key_arn
  multi_az                        = var.database.multi_az
  db_subnet_group_name            = aws_db_subnet_group.this[0].name
  vpc_security_group_ids          = [aws_security_group.database[0].id]
  publicly_accessible             = false
  ca_cert_identifier              = var.database.ca_cert_identifier
  backup_retention_period         = var.database.backup_retention_days
  copy_tags_to_snapshot           = true
  auto_minor_version_upgrade      = true
  performance_insights_enabled    = true
  enabled_cloudwatch_logs_exports = ["postgresql"]
  deletion_protection             = var.database.deletion_protection
  skip_final_snapshot             = false
  final_snapshot_identifier       = "${var.name}-final"
  tags                            = var.tags
}
