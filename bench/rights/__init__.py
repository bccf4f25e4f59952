"""What the rights of persons cost: access, erasure of one and of many, at two sizes."""
