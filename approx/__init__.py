"""Rational approximation with proven error bounds."""
