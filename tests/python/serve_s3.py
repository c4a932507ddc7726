"""Serves directories from S3 as moto has it, with signatures checked.

Usage: serve_s3.py NAME=PATH...     (each file or directory becomes BUCKET/NAME; prints port, key and secret, a line of JSON;
ends with its standard input). The bucket `cells` is private; `open` is a bucket that does not exist.
"""

import json
import logging
import os
import sys

# Three requests without a signature: the user, its key, its policy.
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "3"

import boto3  # noqa: E402
from botocore.config import Config  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
endpoint = f"http://127.0.0.1:{port}"


def client(service, key="none", secret="none"):
    config = Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"})
    return boto3.client(service, endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=key,
                        aws_secret_access_key=secret, config=config)


logging.getLogger("werkzeug").setLevel(logging.ERROR)
iam = client("iam")
iam.create_user(UserName="reader")
key = iam.create_access_key(UserName="reader")["AccessKey"]
policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=json.dumps(policy))
s3 = client("s3", key["AccessKeyId"], key["SecretAccessKey"])
s3.create_bucket(Bucket="cells")
for argument in sys.argv[1:]:
    name, _, path = argument.partition("=")
    if os.path.isfile(path):
        s3.upload_file(path, "cells", name)
        continue
    for folder, _, files in os.walk(path):
        for file in files:
            whole = os.path.join(folder, file)
            s3.upload_file(whole, "cells", f"{name}/{os.path.relpath(whole, path)}")
print(json.dumps({"port": port, "key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}), flush=True)
sys.stdin.read()
