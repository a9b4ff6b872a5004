from __future__ import annotations

import boto3
import pytest
from botocore.exceptions import ClientError

from testkit.s3 import S3Server


def test_what_is_put_can_be_read(s3: S3Server) -> None:
    client = boto3.client("s3", **s3.client_options)
    bucket = s3.new_bucket_name()
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="wal/1", Body=b"page")
    assert client.get_object(Bucket=bucket, Key="wal/1")["Body"].read() == b"page"
    with pytest.raises(ClientError, match="NoSuchKey"):
        client.get_object(Bucket=bucket, Key="wal/2")
    client.close()


def test_names_of_buckets_differ(s3: S3Server) -> None:
    assert s3.new_bucket_name() != s3.new_bucket_name()
