/* What the files of this layer share. */
#ifndef BND_GRAPH_INTERNAL_H
#define BND_GRAPH_INTERNAL_H

#include "graph/graph.h"

struct bnd_graph {
  bnd_arena *arena;
  bool short_of_memory; /* sticky: an allocation failed somewhere, the graph is unusable */
  bnd_node *first, *last;
  int node_count, next_id;
  bnd_map used_names;  /* every name ever given */
  bnd_map name_counts; /* torch.fx's counter behind a base name */
  bnd_attribute *attributes;
  size_t attribute_count, attribute_capacity;
  bnd_map attribute_index;
  bnd_module **modules;
  size_t module_count, module_capacity;
};

/* Registers `node` as user of all its inputs / removes it from all of them. */
void bnd_node_link_inputs(bnd_node *node);
void bnd_node_unlink_inputs(bnd_node *node);

#endif
