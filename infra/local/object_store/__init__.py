"""versitygw, the S3 server."""
