data "aws_caller_identity" "current" {}

# Only ECS, and only for tasks of this account, may take the roles (the confused deputy).
data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }

    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["arn:${data.aws_partition.current.partition}:ecs:${local.region}:${data.aws_caller_identity.current.account_id}:*"]
    }
  }
}

# The role by whose name the registry knows the task. GetCallerIdentity, which a login signs, needs no right.
resource "aws_iam_role" "task" {
  count = var.task_role == null ? 1 : 0

  name                 = "${var.family}-task-role"
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_role_policy" "execute_command" {
  count = var.task_role == null && var.execute_command ? 1 : 0

  name   = "execute-command"
  role   = aws_iam_role.task[0].id
  policy = data.aws_iam_policy_document.execute_command.json
}

data "aws_iam_policy_document" "execute_command" {
  statement {
    actions = [
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }
}

# In bridge and host mode the registrar may ask AWS for the host's address, if it has the extra `aws`.
resource "aws_iam_role_policy" "address" {
  count = var.task_role == null && var.network_mode != "awsvpc" ? 1 : 0

  name   = "address"
  role   = aws_iam_role.task[0].id
  policy = data.aws_iam_policy_document.address.json
}

data "aws_iam_policy_document" "address" {
  statement {
    actions   = ["ecs:DescribeTasks", "ecs:DescribeContainerInstances", "ec2:DescribeInstances"]
    resources = ["*"]
  }
}

resource "aws_iam_role" "execution" {
  count = var.execution_role == null ? 1 : 0

  name                 = "${var.family}-execution-role"
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_role_policy" "execution" {
  count = var.execution_role == null ? 1 : 0

  name   = "execution"
  role   = aws_iam_role.execution[0].id
  policy = data.aws_iam_policy_document.execution.json
}

locals {
  # `valueFrom` may name a key of a JSON secret behind the ARN (`:key:stage:id`); a right names the secret alone.
  secrets     = distinct([for arn in concat(module.containers.secrets, var.secrets) : join(":", slice(split(":", arn), 0, min(7, length(split(":", arn)))))])
  secrets_sm  = [for arn in local.secrets : arn if split(":", arn)[2] == "secretsmanager"]
  secrets_ssm = [for arn in local.secrets : arn if split(":", arn)[2] == "ssm"]
}

data "aws_iam_policy_document" "execution" {
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.this.arn}:*"]
  }

  dynamic "statement" {
    for_each = length(var.ecr_repositories) == 0 ? [] : [var.ecr_repositories]
    content {
      actions   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      resources = statement.value
    }
  }

  dynamic "statement" {
    for_each = length(var.ecr_repositories) == 0 ? [] : ["*"]
    content {
      actions   = ["ecr:GetAuthorizationToken"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = length(local.secrets_sm) == 0 ? [] : [local.secrets_sm]
    content {
      actions   = ["secretsmanager:GetSecretValue"]
      resources = statement.value
    }
  }

  dynamic "statement" {
    for_each = length(local.secrets_ssm) == 0 ? [] : [local.secrets_ssm]
    content {
      actions   = ["ssm:GetParameters"]
      resources = statement.value
    }
  }

  dynamic "statement" {
    for_each = length(var.kms_keys) == 0 ? [] : [var.kms_keys]
    content {
      actions   = ["kms:Decrypt"]
      resources = statement.value
    }
  }
}
