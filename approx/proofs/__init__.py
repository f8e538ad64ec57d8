"""Proofs: bounds on sup |f - r|, poles, the least possible error, and certificates that replay them."""

from approx.proofs.certificate import Certificate, CertificateError, Estimate, certify, verify

__all__ = ["Certificate", "CertificateError", "Estimate", "certify", "verify"]
