# LocalStack keeps everything in its memory, Terraform's state included (see local_override.tf): both begin anew together. This marks one such life.
resource "terraform_data" "life" {}
