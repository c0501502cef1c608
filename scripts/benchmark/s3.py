"""A small S3 client, enough to fill and look at buckets of a real stack."""

import datetime
import hashlib
import hmac
import http.client
import re
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from html import unescape

PART = 16 * 1024 * 1024


def quote(text):
    return urllib.parse.quote(text, safe="-_.~/")


class Client:
    def __init__(self, endpoint, region, key, secret):
        self.url = urllib.parse.urlsplit(endpoint)
        self.region, self.key, self.secret = region, key, secret

    def request(self, method, path, query=None, body=b"", ok=(200, 204)):
        """The body of the answer, and its headers."""
        query = "&".join(f"{urllib.parse.quote(k, safe='')}={urllib.parse.quote(v, safe='')}"
                         for k, v in sorted((query or {}).items()))
        path = self.url.path.rstrip("/") + quote(path)
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": self.url.netloc, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": now}
        signed = ";".join(sorted(headers))
        canonical = "\n".join([method, path, query, *(f"{k}:{headers[k]}" for k in sorted(headers)), "", signed,
                               "UNSIGNED-PAYLOAD"])
        scope = f"{now[:8]}/{self.region}/s3/aws4_request"
        key = f"AWS4{self.secret}".encode()
        for step in (*scope.split("/")[:3], "aws4_request"):
            key = hmac.new(key, step.encode(), hashlib.sha256).digest()
        text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, SignedHeaders={signed}, "
                                    f"Signature={signature}")
        kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self.url.netloc, timeout=300)
        try:
            connection.request(method, f"{path}?{query}" if query else path, body=body, headers=headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status not in ok:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return text, answer.headers

    def make_bucket(self, bucket):
        self.request("PUT", f"/{bucket}", ok=(200, 409))

    def list(self, bucket):
        """Sizes by key."""
        return {key: size for key, (size, *_) in self.versions(bucket).items()}

    def versions(self, bucket):
        """Size, tag and time by key. Without a delimiter, so that the server's pages are whole."""
        found, query = {}, {"list-type": "2"}
        while True:
            text = self.request("GET", f"/{bucket}", query)[0].decode()
            for item in re.findall(r"<Contents>(.*?)</Contents>", text, re.S):
                key = unescape(re.search(r"<Key>(.*?)</Key>", item, re.S)[1])
                tag, modified = (re.search(rf"<{name}>(.*?)</{name}>", item)[1] for name in ("ETag", "LastModified"))
                found[key] = int(re.search(r"<Size>(\d+)</Size>", item)[1]), tag, modified
            token = re.search(r"<NextContinuationToken>(.*?)</NextContinuationToken>", text)
            if not token:
                return found
            query["continuation-token"] = unescape(token[1])

    def delete(self, bucket, key):
        self.request("DELETE", f"/{bucket}/{key}")

    def empty(self, bucket):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: self.delete(bucket, key), self.list(bucket)))

    def put(self, bucket, key, size, piece):
        """`size` bytes, repeating `piece` (one PART long)."""
        path = f"/{bucket}/{key}"
        if size <= PART:
            self.request("PUT", path, body=piece[:size])
            return
        text, _ = self.request("POST", path, {"uploads": ""})
        upload = unescape(re.search(r"<UploadId>(.*?)</UploadId>", text.decode())[1])
        tags = []
        for number in range(1, (size + PART - 1) // PART + 1):
            part = piece[: min(PART, size - (number - 1) * PART)]
            _, headers = self.request("PUT", path, {"partNumber": str(number), "uploadId": upload}, part)
            tags.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{headers['etag']}</ETag></Part>")
        body = f"<CompleteMultipartUpload>{''.join(tags)}</CompleteMultipartUpload>"
        self.request("POST", path, {"uploadId": upload}, body.encode())
