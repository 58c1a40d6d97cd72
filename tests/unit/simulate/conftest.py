from tests.unit.api.conftest import parts

__all__ = ["parts"]
