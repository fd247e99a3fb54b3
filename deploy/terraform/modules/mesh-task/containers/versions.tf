# No provider: `terraform apply` in a module that calls this one renders the containers on any machine.
terraform {
  required_version = ">= 1.9"
}
