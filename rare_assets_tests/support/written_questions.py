"""Questions and reasoning on the sample corpus, written by hand: what the quality checks are judged on.

For each document a question that one of its sentences answers (what a lazy teacher writes), one
that takes several steps (what the prompt asks for), and a reasoned answer to the latter in the
writer's own words. They were not changed to fit a measure.
"""

from typing import NamedTuple


class Written(NamedTuple):
    """A document's two questions, and reasoning to the second one."""

    doc_id: str
    lookup: str
    question: str
    reasoning: str


WRITTEN = [
    Written(
        "galvanic-cell",
        "In the Daniell cell, which metal dissolves at the anode and which ions are deposited at "
        "the cathode?",
        "A student replaces the unglazed clay pot between the two beakers of her battery with a "
        "sheet of glass. The voltmeter shows a moment's deflection and then nothing. Why?",
        "The pot was there to let ions wander from one solution to the other. Glass is tight. "
        "When zinc goes into solution its side becomes positively charged, and where copper is "
        "plated out the other side is left with too much negative charge. Nothing can cross to "
        "even that out, so the charge builds up within an instant and stops the electrons in the "
        "wire. The reaction is as spontaneous as before; what is missing is the way for the ions.",
    ),
    Written(
        "internal-resistance",
        "What is the voltage at the terminals of a battery equal to?",
        "A taxi starts without trouble all summer, then on the first freezing morning the "
        "dashboard lamps dim almost to nothing while the starter groans, although a tester shows "
        "the same resting voltage as in July. What do two separate consequences of the frost have "
        "to do with this?",
        "The resting voltage is measured without current, so it says nothing about what is lost "
        "inside. What counts is the loss, current times internal resistance. First, in the cold "
        "the ions in the electrolyte move sluggishly and the resistance goes up. Second, the oil "
        "is thick, so the motor has to be turned with more force and takes more amperes. Both "
        "factors of the product grow, so the terminals drop far lower than in summer and the "
        "lamps that hang on them dim.",
    ),
    Written(
        "lithium-charging",
        "What does the charger do once the cell voltage reaches its limit of 4.2 volts?",
        "A maker of electric buses lets drivers boost their packs at every stop and finds after a "
        "year that range has fallen and one pack has shorted inside. Which process explains both, "
        "and why does winter make it more likely?",
        "Each boost pushes a large current into the cell. The graphite can take up lithium ions "
        "only so fast, and in winter they slip between its layers even more slowly. Those that "
        "arrive too early are plated as metal on the electrode's surface. Some of that metal "
        "loses contact and is lost for storage, hence the range. The rest may grow as needles, "
        "and one that gets through the separator makes a short circuit.",
    ),
    Written(
        "peukert",
        "Why does a lead-acid battery give back less charge when it is drawn faster?",
        "After emptying a forklift's pack within forty minutes a technician leaves it alone for "
        "an hour and finds to her surprise that the truck drives again for a while. Where was "
        "that charge?",
        "It was never used. At such a current the acid in the pores runs out near the surface and "
        "fresh acid can't diffuse in as fast as it is consumed, so the voltage breaks down "
        "although the inner part of the plates still holds active material. During the hour of "
        "rest diffusion fills the pores with acid again, and what lies deeper can react. It's as "
        "with Peukert's law: what is lost at a high rate is lost to transport, not to chemistry.",
    ),
    Written(
        "galvanic-corrosion",
        "When two metals touch in salt water, which one becomes the anode and corrodes?",
        "A boatyard can fasten bronze fittings to a steel hull with either bronze or steel "
        "screws. Which choice leaves the owner with a hull that lasts, and what is the general "
        "rule behind it?",
        "Steel is the less noble of the two, so it is the steel that is eaten. The same current "
        "passes through both metals, so what matters is over how much area the loss spreads. "
        "Steel screws are small beside a bronze fitting: all of the attack would fall on them and "
        "they would be gone soon. Bronze screws in a large hull of steel do little, since the "
        "current density there is tiny. The rule: make the noble part small and the anode large.",
    ),
    Written(
        "faraday",
        "How many coulombs does one mole of electrons carry?",
        "Two plating shops run their baths at the same amperage for the same time, but one pays "
        "twice as much for electricity. Are its parts coated more thickly, and if not, where did "
        "the money go?",
        "The thickness depends on the charge alone, amperes times seconds, so both shops get the "
        "same mass of metal. The bill is for energy, which is charge times voltage. The second "
        "shop must be running at about double the voltage. That goes into the resistance of its "
        "bath and into the overpotential of its electrodes, in other words into heat. It could "
        "put the electrodes closer together or add salt to the bath.",
    ),
    Written(
        "double-layer",
        "How many square metres of surface does porous carbon offer in every gram?",
        "A tram takes up enough energy for the next kilometre while passengers get on, a hundred "
        "times a day for ten years. Why would an ordinary battery not stand this, and what does "
        "the designer have to accept in return?",
        "A battery stores charge by a reaction that changes its electrodes, which takes time and "
        "wears them out after some thousand cycles. A supercapacitor only gathers electrons and "
        "ions along an interface. So it's full within seconds and can do this hundreds of "
        "thousands of times: the tram needs about 365,000. In return its voltage sinks as the "
        "charge is drawn, so that the drive needs a converter.",
    ),
    Written(
        "d-be99b3ecbd05a05c",
        "Where does a tiny crack open when stress moves dislocations back and forth?",
        "Two identical drill strings have turned for the same hours at the same load, one in a "
        "dry well, one offshore. Inspectors accept the first and scrap the second without finding "
        "any flaw. What justifies this?",
        "In dry conditions the steel has an endurance limit: if the stress is under it, no number "
        "of turns breaks the string. In sea water there's no such limit, so each turn brings the "
        "second string nearer to failure even where nothing is to be seen yet. Pits from "
        "corrosion give cracks a place to begin, and once there is one it grows ever faster. A "
        "crack too small for the inspector may be large after a few weeks more.",
    ),
    Written(
        "d-efee6f03e84746cc",
        "By how many millivolts is a nerve cell at rest more negative inside than outside?",
        "A poison stops the ion pumps of a neuron but leaves its channels alone. The resting "
        "voltage is nearly unchanged after a minute and gone after hours. Why not at once?",
        "The voltage isn't made by the pumps directly but by leaks: potassium drifts out along "
        "its gradient until the electric field holds it. That goes on as long as there is more of "
        "it inside. Without the pump, the leaks of potassium and sodium wear the gradients down "
        "slowly, like a battery that is not charged again. So the potential is kept for a while "
        "and fades as the concentrations become equal.",
    ),
    Written(
        "d-1a7f76fe04a317f4",
        "What happens within about a millisecond to the sodium channels?",
        "A drug keeps the sodium channels of a pain fibre in the state they enter at the peak of "
        "an impulse. A weak stimulus has no effect, and neither has the strongest one. Why does "
        "turning up the stimulus not help?",
        "At the peak the channels inactivate, and until they recover they can't open whatever the "
        "voltage. An impulse needs sodium to rush in faster than potassium leaves, which is what "
        "the threshold means. If the channels stay inactivated, there is no voltage at which the "
        "inward current wins, so there is no threshold to be reached. A stronger stimulus only "
        "depolarizes the patch passively.",
    ),
    Written(
        "d-633ab607e6240f5c",
        "Where are sodium channels crowded in axons wrapped in myelin?",
        "In a disease the body strips the sheath from nerve fibres, and signals fade between the "
        "places that used to renew them. Would it restore conduction if the fibre kept its width "
        "but the bare stretches were filled with more channels?",
        "Without the sheath the membrane is leaky and has a large capacitance, so current is lost "
        "on its way along the core before it gets to the next node. More sodium channels in the "
        "bare stretches would renew the impulse there, as in a fibre that never had myelin. It "
        "would be conducted again, but slowly, since each bit of membrane has to be charged in "
        "turn. To be quick at the same time it would have to be as thick as a squid's.",
    ),
    Written(
        "d-bfb2bdc25f5d7fd7",
        "What does the flow through a vessel equal?",
        "A medicine lets the smallest arteries relax by a tenth of their width. The pressure of "
        "the patient falls much more than by a tenth. Explain the disproportion without any "
        "formula from a book.",
        "Resistance falls with the fourth power of the radius. With a radius 1.1 times as large "
        "it goes down to about 1/1.46, or 68 per cent. Most of the pressure is lost in the "
        "arterioles, so their resistance makes up most of the total. If the heart pumps the same "
        "flow, pressure follows resistance, so it drops by a little less than a third.",
    ),
    Written(
        "d-818cb5886701c267",
        "Where does the beat of the heart begin?",
        "An athlete has an extra strand of muscle that joins upper and lower chambers of the "
        "heart past the usual crossing. His pulse is normal, yet on the recording the lower "
        "chambers are excited too early. What is he missing, and what might he notice in a "
        "sprint?",
        "Normally the impulse can only reach the ventricles by the atrioventricular node, and "
        "this holds it up for a tenth of a second. The extra strand gets round the node, so the "
        "delay is gone. The rate is still set by the sinus node, hence the normal pulse. But the "
        "atria have less time to empty, so the ventricles are filled worse, which he'd notice "
        "when he needs the most blood.",
    ),
    Written(
        "gulf-stream",
        "What drives a slow clockwise gyre in the North Atlantic?",
        "A modeller simulates an ocean planet whose spin deflects moving water equally at all "
        "latitudes. Will ships on its voyages eastward find a narrow fast lane along one coast, "
        "as ours do?",
        "On our planet the deflection gets stronger with latitude, and that is what breaks the "
        "symmetry: the spin that the wind feeds into the basin can be lost only in a strong "
        "stream at the western side. If the Coriolis effect is the same everywhere, there is no "
        "such preference. The gyre is symmetric, broad on both sides, and no coast has a fast "
        "lane.",
    ),
    Written(
        "overturning",
        "How long may water that sinks today need to see the surface again?",
        "If rain and meltwater freshened the seas around Greenland, would cooling in winter still "
        "renew the deep ocean, and would the effect be seen on a human timescale?",
        "What makes the water sink is its density, and that comes from cold and salt together. "
        "Fresh water makes it lighter. Even when it's cooled to freezing it may then stay on top, "
        "so less water goes down. But the deep circulation turns over in about a thousand years. "
        "The change near the surface would come soon, that at depth would take centuries.",
    ),
    Written(
        "rip-current",
        "How fast may a rip current be?",
        "A lifeguard tells a family to stay away from the calm-looking strip between two areas of "
        "breakers, and if caught to swim along the beach. Why is calm a warning here, and why "
        "that direction?",
        "Waves break over the bar; where there is a gap they don't, so it looks calm. But that's "
        "where all the water pushed up the beach flows back to sea. Nobody can swim for long "
        "against two metres a second. The current is narrow, though: a few strokes sideways and "
        "one is out of it. And it doesn't drag anyone down and fades behind the breakers.",
    ),
    Written(
        "pressure-and-wind",
        "To which side does the Coriolis effect turn the air in the Northern Hemisphere?",
        "From a balloon over a plain a pilot sees smoke from a chimney and low clouds drift in "
        "directions that differ by thirty degrees. Towards which side does the smoke go, and what "
        "would change over the sea?",
        "Near the ground friction slows the air down. The Coriolis deflection goes with the "
        "speed, so it becomes weaker, while the push from high to low pressure is what it was. "
        "The smoke therefore heads more towards the low, that is to the left of the clouds, which "
        "follow the isobars. Over the sea there's less friction, so the angle gets smaller.",
    ),
    Written(
        "thunder-charge",
        "What happens when graupel and crystals collide in the presence of droplets?",
        "Two cumulus towers of the same height grow over a coast, one of them entirely above the "
        "freezing level, with hardly any liquid left. Which of them flashes first?",
        "For charge to be passed on, soft hail has to bump into crystals while there are droplets "
        "of liquid below freezing around. The dry tower has ice only, so the collisions do "
        "little. In the other the graupel becomes negative and sinks, the crystals positive and "
        "go up with the updraught. There the potential builds up, so that one flashes first.",
    ),
    Written(
        "tidal-resonance",
        "What is the natural period of the Bay of Fundy and the Gulf of Maine close to?",
        "Engineers plan a dam halfway up an inlet that is famous for its tides, to make power "
        "from the range. Why might the dam itself take away much of what they want to use?",
        "The tide there is so high since the basin rocks in time with the Moon: its own period is "
        "near 12.4 hours. The period is set by length and depth. A dam halfway makes the inlet "
        "shorter, so its period becomes shorter, and it's out of tune with the tide. Each pull "
        "then adds less to the motion, and the range shrinks.",
    ),
    Written(
        "storm-surge",
        "By how much does the surface bulge for each hectopascal of low air pressure?",
        "The same cyclone passes a volcanic island that rises straight from the deep and then a "
        "river delta. The island sees half a metre of extra water, the delta four. Why?",
        "Both get the bulge from the low pressure, about a centimetre per hectopascal, so half a "
        "metre or so. The wind drags water to both coasts too. At the island it can flow back "
        "underneath as the sea is deep. Over the delta's shallow shelf there's no room for a "
        "return flow, so the water piles up until the slope holds the wind's stress.",
    ),
]


class Close(NamedTuple):
    """A question that takes reasoning and stays close to its document's words, as a good teacher's
    mostly do."""

    doc_id: str
    question: str


CLOSE = [
    Close(
        "galvanic-cell",
        "If the porous barrier in a Daniell cell became completely clogged, how would the current "
        "and the potential difference change over time, and why?",
    ),
    Close(
        "internal-resistance",
        "How would a battery with twice the internal resistance affect the ability of a starter "
        "motor to crank a cold engine, considering both voltage drop and heat produced inside the "
        "cells?",
    ),
    Close(
        "lithium-charging",
        "Why does fast charging at low temperature increase the risk of lithium plating on a "
        "graphite electrode, and how could a charging protocol be modified to avoid both capacity "
        "loss and separator damage?",
    ),
    Close(
        "peukert",
        "Why might a lead-acid battery discharged at a high rate recover part of its capacity "
        "after resting, and how does this relate to diffusion of sulfuric acid in the plates?",
    ),
    Close(
        "galvanic-corrosion",
        "Would it be safer to use steel rivets in a copper plate or copper rivets in a steel "
        "plate in a marine environment, and how does the current density explain the difference?",
    ),
    Close(
        "faraday",
        "If the voltage of the supply is doubled while the current stays the same, how do the "
        "mass of copper deposited and the energy used per gram change?",
    ),
    Close(
        "double-layer",
        "Why can supercapacitors survive far more charge cycles than batteries, and what "
        "trade-off does this storage mechanism impose on the voltage they deliver?",
    ),
    Close(
        "d-be99b3ecbd05a05c",
        "Why would shot peening extend the fatigue life of a steel shaft in air, but offer less "
        "protection when the shaft is used in salt water?",
    ),
    Close(
        "d-efee6f03e84746cc",
        "How would increasing the membrane's permeability to sodium shift the resting potential "
        "of a nerve cell, and what would happen to the gradients over time without active pumps?",
    ),
    Close(
        "d-1a7f76fe04a317f4",
        "Why can't a second stimulus trigger an action potential immediately after the first one, "
        "and how would blocking potassium channels change this period?",
    ),
    Close(
        "d-633ab607e6240f5c",
        "How do a squid's giant axons and vertebrate myelinated axons achieve fast conduction "
        "through different changes to core resistance and membrane capacitance?",
    ),
    Close(
        "d-bfb2bdc25f5d7fd7",
        "If a vessel's radius is reduced by half while its length is also halved, how would the "
        "flow change for the same pressure difference?",
    ),
    Close(
        "d-818cb5886701c267",
        "What would happen to ventricular filling if the atrioventricular node conducted impulses "
        "as fast as the surrounding atrial tissue?",
    ),
    Close(
        "d-45faa7c6007e8ddb",
        "Why does the thickening of the heart wall in response to high blood pressure help at "
        "first but become harmful in the long run?",
    ),
    Close(
        "gulf-stream",
        "How would the circulation in the North Atlantic change if the Coriolis effect did not "
        "vary with latitude?",
    ),
    Close(
        "overturning",
        "How might melting ice in the North Atlantic affect the sinking of dense water and the "
        "overturning circulation over the next centuries?",
    ),
    Close(
        "tidal-resonance",
        "How would building a barrage that shortens the Bay of Fundy affect its tidal range, "
        "given its natural period?",
    ),
    Close(
        "storm-surge",
        "Why does a cyclone with the same central pressure cause a much higher surge over a wide "
        "shallow shelf than near a steep coast?",
    ),
    Close(
        "pressure-and-wind",
        "Why does surface friction cause the wind to blow across isobars towards low pressure, "
        "and how would this angle differ over a smooth ocean?",
    ),
    Close(
        "thunder-charge",
        "If a cloud contained ice crystals but no supercooled droplets, how would the charge "
        "separation between graupel and crystals be affected?",
    ),
]
