"""The cluster as one immutable value, and the cell that holds it.

model            The entities of a Swarm as the rest of the program sees them: frozen values
cluster_view     What a manager knows of the cluster, as one value
snapshot         One immutable value of the whole catalogue, and the change that leads from one to the next
diff             What differs between what is known and what a source now reports, entity by entity
store            The one mutable cell of the catalogue
subscription     One subscriber to the catalogue
intake           What may enter the catalogue: entities whose fields are what their types say
entries          Which node enters the ingress network where: the claims of the nodes, judged
codec            The catalogue as a document: `catalog.yml` for the file source
partial_check    What can be said of a document that is partly wrong: all its faults, the sense of the rest
document_schema  The shape of a catalogue's document: its keys, and what kind of value each has
document_rules   Do the entities of a document make sense together?
documents        From text to a document, with every fault named at its place
"""
