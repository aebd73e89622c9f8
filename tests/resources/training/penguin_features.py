"""Names of the penguins' features, beside the module that imports them."""

MEASURES = (
    "culmen_length_mm",
    "culmen_depth_mm",
    "flipper_length_mm",
    "body_mass_g",
)
LABEL = "species"
SPECIES = 3
