/** A Java program that prints when it is ready and waits for the end of its input. */
class Park {
    public static void main(String[] args) throws java.io.IOException {
        System.out.println("{\"ready\": 1}");
        System.in.read();
    }
}
