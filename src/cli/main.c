/* The program: finds the command, runs it. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const struct {
  const char *name, *summary;
  int (*run)(int argc, char **argv);
} commands[] = {
    {"info", "what is in a checkpoint: layers, sizes, classes, preprocessing", cli_info},
    {"print", "the network's graph as a table or as code", cli_print},
    {"convert", "write the network as FP32 ONNX", cli_convert},
    {"eval", "measure mAP on a folder in COCO layout", cli_evaluate},
    {"predict", "find objects in images", cli_predict},
    {"quantize", "from a checkpoint to INT8 ONNX, with mAP at every step", cli_quantize},
    {"train", "train a network on a folder in COCO layout", cli_train},
    {"dataset", "draw a data set to train and test with", cli_dataset},
    {"dump", "every tensor of a quantized network as integers, for one image", cli_dump},
    {"bench", "time a network layer by layer", cli_bench},
    {"check", "test a network against the constraints of a hardware target", cli_check},
};
enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

static const char quark_example_name[] = "yolo_nas_pow2_int_quant";

static void print_help(void) {
  puts("Usage: binade COMMAND [OPTION...] ...\n\n"
       "Trains object detectors (YOLO-NAS) and quantizes them to INT8 with power-of-two\nscales.\n");
  for (size_t i = 0; i < COMMAND_COUNT; i++) printf("  %-10s%s\n", commands[i].name, commands[i].summary);
  puts("\n"
       "  -h, --help      this text; 'binade COMMAND --help' explains a command\n"
       "      --version   the version\n\n"
       "Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.\n"
       "The manual page binade(1) has the details.");
}

static _Noreturn void unknown(const char *word) {
  const char *names[COMMAND_COUNT];
  for (size_t i = 0; i < COMMAND_COUNT; i++) names[i] = commands[i].name;
  const char *nearest = cli_nearest(word, names, COMMAND_COUNT);
  const char *kind = word[0] == '-' ? "option" : "command";
  if (nearest) cli_usage_error("binade", "unknown %s '%s'; did you mean '%s'?", kind, word, nearest);
  cli_usage_error("binade", "unknown %s '%s'", kind, word);
}

static int dispatch(int argc, char **argv) {
  if (argc < 2) cli_usage_error("binade", "no command given");
  const char *word = argv[1];
  if (strcmp(word, "--version") == 0) {
    puts("binade " BND_VERSION_STRING);
    return CLI_OK;
  }
  const bool help = strcmp(word, "help") == 0;
  if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || (help && argc == 2)) {
    print_help();
    return CLI_OK;
  }
  char *help_arguments[] = {argv[help && argc > 2 ? 2 : 1], "--help", NULL};
  for (size_t i = 0; i < COMMAND_COUNT; i++) {
    if (strcmp(help_arguments[0], commands[i].name) != 0) continue;
    return help ? commands[i].run(2, help_arguments) : commands[i].run(argc - 1, argv + 1);
  }
  unknown(help_arguments[0]);
}

int main(int argc, char **argv) {
  const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL, *name = slash ? slash + 1 : argc > 0 ? argv[0] : "";
  const bool quark_example = strcmp(name, quark_example_name) == 0;
  signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is then an error like a full disk, not a sudden end */
  cli_start(quark_example ? quark_example_name : "binade", argc, argv);
  return cli_finish(quark_example ? cli_quark_example(argc, argv) : dispatch(argc, argv));
}
