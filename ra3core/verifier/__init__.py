"""Runs untrusted programs and judges them from outside (docs/verifier.md)."""

from ra3core.verifier.judge import WORKERS, SandboxError, Verifier
from ra3core.verifier.program import Check, Program, Script, Verdict

__all__ = ["WORKERS", "Check", "Program", "SandboxError", "Script", "Verdict", "Verifier"]
