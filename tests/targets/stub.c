#include "zoo.h"

const struct zoo_case huge_cases[] = {{NULL, NULL}}, mark_cases[] = {{NULL, NULL}}, special_cases[] = {{NULL, NULL}}, swap_cases[] = {{NULL, NULL}}, task_cases[] = {{NULL, NULL}};
