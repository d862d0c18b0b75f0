package main

// #include <stdlib.h>
// static void hold(void) {
//	for (int i = 0; i < 20000; i++) {
//		char *block = malloc(700);
//		block[0] = 1;
//		if (i % 50)
//			free(block);
//	}
// }
import "C"

func init() {
	C.hold()
}
