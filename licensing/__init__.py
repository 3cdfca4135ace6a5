"""What licenses and terms of service ask of a release, as data and pure functions. Not legal advice.

To change                                                    edit
what a license or a service says                             data/*.yaml (schema.py: the keys)
how a name is resolved to a license                          registry.py; expressions.py for OR, AND, WITH
published data sets, and who wrote their rows                published_data.py; data/datasets/
the lineage file                                             lineage.py; countries.py for domiciles
where a lineage is read from: card, configs, license files   provenance.py; card.py
folders and hub repositories; what model files say           repository.py, hub.py; model_files.py
which license a text is; which file names count              detect.py; license_files.py
a rule, a finding                                            rules/
the verdict, waivers, NOTICE                                 audit.py
the suggestion of a cleaner release                          suggest.py
license files that are written                               license_texts.py
openness classes; bills of materials                         openness.py; bom.py (CycloneDX), spdx.py
the printed table and Markdown                               render.py
whether an endpoint is one's own                             addresses.py
errors, JSON and atomic writes, untrusted YAML               errors.py, files.py, safe_yaml.py
the base class of context managers that are closed           closing.py
imports of large libraries, without the garbage collector    large_imports.py
formats of keys and tokens                                   secrets.py
"""
