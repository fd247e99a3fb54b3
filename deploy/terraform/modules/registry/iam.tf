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
      values   = [local.account]
    }

    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["arn:${local.partition}:ecs:${local.region}:${local.account}:*"]
    }
  }
}

resource "aws_iam_role" "task" {
  name                 = "${var.name}-task-role"
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

# Logins need no right here: the registry sends what a workload signed, with the workload's name under it.
resource "aws_iam_role_policy" "ask_ecs" {
  count = var.ask_ecs ? 1 : 0

  name   = "ask-ecs"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.ask_ecs.json
}

data "aws_iam_policy_document" "ask_ecs" {
  statement {
    sid       = "AskForTheTasksOfSuspects"
    actions   = ["ecs:DescribeTasks"]
    resources = [for cluster in local.clusters : "arn:${local.partition}:ecs:${local.region}:${local.account}:task/${cluster}/*"]
  }

  statement {
    sid       = "AskForTheDesiredCountsOfServices"
    actions   = ["ecs:DescribeServices"]
    resources = [for cluster in local.clusters : "arn:${local.partition}:ecs:${local.region}:${local.account}:service/${cluster}/*"]
  }
}

resource "aws_iam_role" "operator" {
  count = var.execute_command ? 1 : 0

  name                 = "${var.name}-operator-role"
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_role_policy" "operator" {
  count = var.execute_command ? 1 : 0

  name   = "execute-command"
  role   = aws_iam_role.operator[0].id
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

resource "aws_iam_role" "execution" {
  name                 = "${var.name}-execution-role"
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_role_policy" "execution" {
  name   = "execution"
  role   = aws_iam_role.execution.id
  policy = data.aws_iam_policy_document.execution.json
}

locals {
  # Not in `count` or `for_each` of a resource: a key of the same apply is not known at plan time.
  kms_keys = concat(var.kms_keys, [for made in local.made : made.kms_key_arn if made.kms_key_arn != null])
}

data "aws_iam_policy_document" "execution" {
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.this.arn}:*"]
  }

  statement {
    actions   = [module.containers.password_right.action]
    resources = [module.containers.password_right.resource]
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
    for_each = length(local.kms_keys) == 0 ? [] : [local.kms_keys]
    content {
      actions   = ["kms:Decrypt"]
      resources = statement.value
    }
  }
}
