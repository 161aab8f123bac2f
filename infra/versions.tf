terraform {
  # 1.11 brings write-only arguments, which keep the hash's key out of the state.
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }
}
