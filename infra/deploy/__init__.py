"""Deployment: making servers, local or in production, agree with this repository."""

from infra.deploy.apply import Deployment, deploy

__all__ = ["Deployment", "deploy"]
