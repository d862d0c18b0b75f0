/** Allocates 64 MiB of small objects, drops half of them, and waits. */
class Wait {
    public static void main(String[] arguments) throws Exception {
        byte[][] kept = new byte[32 << 10][];
        for (int i = 0; i < 2 * kept.length; i++) {
            byte[] made = new byte[1 << 10];
            if (i % 2 == 0)
                kept[i / 2] = made;
        }
        System.out.println("ready");
        while (kept.length > 0)
            Thread.sleep(1 << 30);
    }
}
