/* Target profiles by name (built in) or as a JSON file of the same shape. */
#ifndef BND_FLOW_TARGET_PROFILE_H
#define BND_FLOW_TARGET_PROFILE_H

#include "base/status.h"
#include "passes/target/target.h"

/* name: "amd-xint8", or the path of a file ending in .json. NULL = amd-xint8. Unknown names are an error that lists the known ones. */
bnd_status bnd_target_profile_load(const char *name, bnd_target_profile *profile, bnd_error *error);
/* Whether a name given to the function above (NULL allowed) is that of a file. */
bool bnd_target_profile_is_file(const char *name);

#endif
