#ifndef BINADE_VERSION_H
#define BINADE_VERSION_H

/* The one place that holds the version; the build reads it from here. */
#define BND_VERSION_MAJOR 0
#define BND_VERSION_MINOR 1
#define BND_VERSION_PATCH 0
#define BND_VERSION_STRING "0.1.0"

#endif
