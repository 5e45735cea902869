import ArgumentParser
import LongspanKernels
import LongspanMeasure

struct CallsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "calls", abstract: "Measures what a kernel call costs by itself, from C and from Swift.",
    discussion: """
      Attention decode over one key: 9 query heads, 3 key/value heads, head dimension 64, f32, one thread. Batches of 1000 \
      calls of each way take turns; a row gives the fastest and the median batch's time of a call.
      """)

  @Option(help: "ISA variant, as `longspan info` lists them; by default the best that this CPU runs.")
  var isa: String?

  @Option(help: "Seconds of calls.")
  var seconds = 2.0

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    guard seconds >= 0, seconds <= 3600 else {
      throw ValidationError("--seconds must be 0 to 3600")
    }
  }

  func run() throws {
    let isa = try KernelContext(threads: 1, isa: isa).isa
    let rows = try CallCost.measure(isa: isa, seconds: seconds).map { cost in
      Row(
        call: cost.way.rawValue, isa: isa, nanoseconds: cost.timing.minimum,
        medianNanoseconds: cost.timing.median,
        batches: cost.timing.repetitions)
    }
    if json {
      try printJSON(rows)
    } else {
      printTable(
        [("attention decode, S = 1, \(isa)", "ns, min (median)")]
          + rows.map { ($0.call, "\(Cell.number($0.nanoseconds)) (\(Cell.number($0.medianNanoseconds)))") })
    }
  }

  private struct Row: Encodable {
    let call: String
    let isa: String
    let nanoseconds: Double
    let medianNanoseconds: Double
    let batches: Int
  }
}
