import javassist.ClassPool;
import javassist.CtClass;

/** Writes two changed classes of Beam into a folder that goes before its jars. */
public class Prepare {
  public static void main(String[] args) throws Exception {
    ClassPool pool = ClassPool.getDefault();

    // Beam's servers choose a port and no address, so that whoever reaches this machine
    // could have it run code. Beam carries gRPC with a version in its name.
    CtClass server =
        pool.get("org.apache.beam.vendor.grpc.v1p60p1.io.grpc.netty.NettyServerBuilder");
    server
        .getDeclaredMethod("forPort", new CtClass[] {CtClass.intType})
        .setBody(
            "return forAddress(new java.net.InetSocketAddress("
                + "java.net.InetAddress.getLoopbackAddress(), $1));");
    server.writeFile(args[0]);

    // With every job, the job server would send the cluster all its jars, which takes
    // longer than small jobs. The cluster has them too.
    CtClass detector =
        pool.get(
            "org.apache.beam.sdk.util.construction.resources"
                + ".ClasspathScanningResourcesDetector");
    detector.getDeclaredMethod("detect").setBody("return new java.util.ArrayList();");
    detector.writeFile(args[0]);
  }
}
