"""A wine that the served model is asked about."""

from pydantic import Field

from flows.lifecycle.spec import ServedRow


class Wine(ServedRow):
    """Its 13 measurements, as scikit-learn names and orders them."""

    alcohol: float = Field(examples=[14.2])
    malic_acid: float = Field(examples=[1.7])
    ash: float = Field(examples=[2.4])
    alcalinity_of_ash: float = Field(examples=[15.6])
    magnesium: float = Field(examples=[127.0])
    total_phenols: float = Field(examples=[2.8])
    flavanoids: float = Field(examples=[3.1])
    nonflavanoid_phenols: float = Field(examples=[0.3])
    proanthocyanins: float = Field(examples=[2.3])
    color_intensity: float = Field(examples=[5.6])
    hue: float = Field(examples=[1.0])
    od280: float = Field(alias="od280/od315_of_diluted_wines", examples=[3.9])
    proline: float = Field(examples=[1065.0])
