"""A small certificate authority for the tests, made with the openssl program."""

import subprocess

from harness import give_to_run_user


def _openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


class Authority:
    """One root certificate in a folder, which signs the others."""

    def __init__(self, folder, name="test root"):
        self.folder = folder
        self.key = folder / "root.key"
        self.cert = folder / "root.crt"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", 30,
                 "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.cert)
        self.cert.chmod(0o644)

    def issue(self, file_name, common_name, alt_names="DNS:localhost,IP:127.0.0.1", days=30):
        """Signs a certificate; returns (certificate, key) paths, the key readable by the servers only. `common_name`
        may go on with other parts of the subject, as in "user/O=org"; `days` of -1 gives an expired one."""
        key = self.folder / f"{file_name}.key"
        cert = self.folder / f"{file_name}.crt"
        request = self.folder / f"{file_name}.csr"
        extensions = self.folder / f"{file_name}.ext"
        extensions.write_text(f"subjectAltName={alt_names}\n")
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
                 f"/CN={common_name}", "-keyout", key, "-out", request)
        _openssl("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial", "-days", days,
                 "-extfile", extensions, "-out", cert)
        key.chmod(0o600)
        cert.chmod(0o644)
        give_to_run_user(key)
        give_to_run_user(cert)
        return cert, key
